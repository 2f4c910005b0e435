"""Text to tokens: one code path for trainer, converter and gateway, so that they cannot differ.

Knows tokenizer.json; knows nothing about tasks. Needs `tokenizers` alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from services.tasks.base import IntArray

# Beyond the words that surely hold max_length tokens, so that a tokenizer whose pieces cross a space
# is not disturbed where it matters.
_MARGIN_WORDS = 16


@dataclass(frozen=True)
class Tokens:
    """One encoded text or pair; `truncated` if the model reads less than the whole of it."""

    input_ids: list[int]
    token_type_ids: list[int]
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.input_ids)


class Encoder:
    """Turns texts into tokens of at most `max_length`, special tokens included (longest text cut first)."""

    def __init__(self, tokenizer_json: str, max_length: int) -> None:
        # Two of a kind: the first reads text, the second cuts and adds special tokens. One pass over the
        # text then gives both the cut tokens and whether there were more.
        self._reader = Tokenizer.from_str(tokenizer_json)
        self._reader.no_truncation()
        self._reader.no_padding()
        self._cutter = Tokenizer.from_str(tokenizer_json)
        self._cutter.no_padding()
        side = (self._cutter.truncation or {}).get("direction", "right")
        self._cutter.enable_truncation(max_length, direction=side)
        self._cuts_the_end = side == "right"
        self.max_length = max_length
        padding = Tokenizer.from_str(tokenizer_json).padding
        self.pad_id = int(padding["pad_id"]) if padding else (self._reader.token_to_id("[PAD]") or 0)

    @classmethod
    def from_file(cls, path: Path, max_length: int) -> "Encoder":
        """Returns the encoder of a tokenizer.json."""
        return cls(path.read_text(encoding="utf-8"), max_length)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] = ()) -> list[Tokens]:
        """Returns the tokens of each text, or of each pair where `pairs` has one for each text."""
        if not pairs:
            return self._encode_heads(texts)
        firsts, seconds = self._read(texts), self._read(pairs)
        return [self._finish(a, b) for a, b in zip(firsts, seconds, strict=True)]

    def _encode_heads(self, texts: Sequence[str]) -> list[Tokens]:
        heads = [self._head(text) for text in texts]
        rows = [self._finish(encoding) for encoding in self._read(heads)]
        for i, (text, head) in enumerate(zip(texts, heads, strict=True)):
            # Words of which the tokenizer makes nothing, such as lone control characters.
            if len(head) < len(text) and not rows[i].truncated:
                rows[i] = self._finish(self._read([text])[0])
        return rows

    def _head(self, text: str) -> str:
        """Returns as many words of a text as the model can read: reading on costs seconds for a megabyte."""
        num_words = self.max_length + _MARGIN_WORDS
        # A word and its space are two characters at least.
        if not self._cuts_the_end or len(text) <= 2 * num_words:
            return text
        words = text.split(None, num_words)
        return text[: len(text) - len(words[-1])] if len(words) > num_words else text

    def _read(self, texts: Sequence[str]) -> list[Any]:
        return list(self._reader.encode_batch_fast(texts, add_special_tokens=False))

    def _finish(self, first: Any, second: Any = None) -> Tokens:
        special = self._cutter.num_special_tokens_to_add(second is not None)
        total = len(first) + (len(second) if second is not None else 0) + special
        cut = self._cutter.post_process(first, second)
        return Tokens(cut.ids, cut.type_ids, total > self.max_length)


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
