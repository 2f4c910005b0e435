"""Text to tokens: one code path for trainer, converter and gateway, so that they cannot differ.

Knows tokenizer.json; knows nothing about tasks. Needs `tokenizers` alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from services.tasks.base import IntArray


@dataclass(frozen=True)
class Tokens:
    """One encoded text or pair. `num_input_tokens` counts the whole input, cut off or not."""

    input_ids: list[int]
    token_type_ids: list[int]
    num_input_tokens: int

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def truncated(self) -> bool:
        """True if the model reads less than the whole input."""
        return self.num_input_tokens > len(self.input_ids)


class Encoder:
    """Turns texts into tokens of at most `max_length`, special tokens included (longest text cut first)."""

    def __init__(self, tokenizer_json: str, max_length: int) -> None:
        # Two of a kind: the first reads the whole text, the second cuts and adds special tokens. One
        # pass over the text then gives both the cut tokens and how many there were.
        self._reader = Tokenizer.from_str(tokenizer_json)
        self._reader.no_truncation()
        self._reader.no_padding()
        self._cutter = Tokenizer.from_str(tokenizer_json)
        self._cutter.no_padding()
        side = (self._cutter.truncation or {}).get("direction", "right")
        self._cutter.enable_truncation(max_length, direction=side)
        self.max_length = max_length
        padding = Tokenizer.from_str(tokenizer_json).padding
        self.pad_id = int(padding["pad_id"]) if padding else (self._reader.token_to_id("[PAD]") or 0)

    @classmethod
    def from_file(cls, path: Path, max_length: int) -> "Encoder":
        """Returns the encoder of a tokenizer.json."""
        return cls(path.read_text(encoding="utf-8"), max_length)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] = ()) -> list[Tokens]:
        """Returns the tokens of each text, or of each pair where `pairs` has one for each text."""
        firsts = self._reader.encode_batch_fast(texts, add_special_tokens=False)
        if not pairs:
            return [self._finish(first, None) for first in firsts]
        seconds = self._reader.encode_batch_fast(pairs, add_special_tokens=False)
        return [self._finish(a, b) for a, b in zip(firsts, seconds, strict=True)]

    def _finish(self, first, second) -> Tokens:  # type: ignore[no-untyped-def]  # tokenizers' Encoding is untyped
        special = self._cutter.num_special_tokens_to_add(second is not None)
        total = len(first) + (len(second) if second is not None else 0) + special
        cut = self._cutter.post_process(first, second)
        return Tokens(cut.ids, cut.type_ids, total)


def pad(rows: Sequence[Tokens], length: int, pad_id: int, *, batch: int = 0) -> dict[str, IntArray]:
    """Returns input_ids, attention_mask and token_type_ids `(batch, length)`, int64, padded on the right.

    `batch` rows are made if that is more than there are: the extra ones are padding with one real
    token, since a row without any makes attention divide by zero.
    """
    shape = (max(batch, len(rows)), length)
    ids = np.full(shape, pad_id, dtype=np.int64)
    mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row.input_ids
        mask[i, : len(row)] = 1
        types[i, : len(row)] = row.token_type_ids
    mask[len(rows) :, 0] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
