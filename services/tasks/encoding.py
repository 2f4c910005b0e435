"""Text to tokens: one code path for trainer, converter and gateway, so that they cannot differ.

Knows tokenizer.json; knows nothing about tasks. Needs `tokenizers` alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from services.tasks.tensors import Array
from services.tasks.token_classification.word_pieces import WordPieces

# Beyond the words that surely hold max_length tokens, so that a tokenizer whose pieces cross a space
# is not disturbed where it matters.
_MARGIN_WORDS = 16


SPECIAL = -1
"""In `sequence_ids` and `word_ids`: a token that stands for no text."""


@dataclass(frozen=True)
class Spans:
    """Where tokens lie in their text. One entry a token.

    `offsets` are code points [start, end) in the text that `sequence_ids` names: 0 the text, 1 its pair.
    `word_ids` count the words of that text. Both are SPECIAL, and offsets (0, 0), for special tokens.
    """

    offsets: Sequence[tuple[int, int]]
    sequence_ids: Sequence[int]
    word_ids: Sequence[int]


@dataclass(frozen=True)
class Tokens:
    """One encoded text or pair, or a window of it; `truncated` if the model reads less than the whole.

    `parameters` are inputs beside the tokens, one number each. `spans` are there for windows.
    """

    input_ids: list[int]
    token_type_ids: list[int]
    truncated: bool = False
    parameters: Mapping[str, float] = field(default_factory=dict)
    spans: Spans | None = None

    def __len__(self) -> int:
        return len(self.input_ids)


class NoRoomError(ValueError):
    """The first text of pair `index` is `num_tokens` long; `most` leave a window room for the second."""

    def __init__(self, index: int, *, num_tokens: int, most: int) -> None:
        super().__init__(f"{index}: {num_tokens} tokens, at most {most} leave room for a window")
        self.index = index
        self.num_tokens = num_tokens
        self.most = most


class Encoder:
    """Turns texts into tokens of at most `max_length`, special tokens included (longest text cut first)."""

    def __init__(self, tokenizer_json: str, max_length: int) -> None:
        self._json = tokenizer_json
        self._windowers: dict[tuple[int, bool], Tokenizer] = {}
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

    def windows(
        self, texts: Sequence[str], pairs: Sequence[str] = (), *, stride: int
    ) -> list[tuple[Tokens, ...]]:
        """Returns each text in windows of at most `max_length` tokens, neighbours sharing `stride` of them.

        Of pairs the second text is windowed and the first stands in every window whole. Nothing is cut:
        raises NoRoomError for the first pair whose first text leaves a window no room.
        """
        windower = self._windower(stride, paired=bool(pairs))
        if not pairs:
            return [_windows(found) for found in windower.encode_batch(list(texts))]
        # A context is often shared by many questions, and is then read once.
        once = list(dict.fromkeys(pairs))
        seconds = dict(zip(once, self._reader.encode_batch(once, add_special_tokens=False), strict=True))
        firsts = self._reader.encode_batch(list(texts), add_special_tokens=False)
        rows = [(first, seconds[pair]) for first, pair in zip(firsts, pairs, strict=True)]
        self._check_room(rows, stride)
        return [_windows(windower.post_process(first, second)) for first, second in rows]

    @cached_property
    def words(self) -> WordPieces:
        """Which tokens go on with a word."""
        return WordPieces(self._json)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of tokens, special ones left out."""
        return str(self._reader.decode(list(ids), skip_special_tokens=True))

    def ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Returns the tokens of the whole text, nothing cut."""
        return list(self._reader.encode(text, add_special_tokens=add_special_tokens).ids)

    def count(self, text: str, *, add_special_tokens: bool = True) -> int:
        """Returns how many tokens the whole text is."""
        return len(self._reader.encode(text, add_special_tokens=add_special_tokens))

    def _windower(self, stride: int, *, paired: bool) -> Tokenizer:
        if (stride, paired) not in self._windowers:
            windower = Tokenizer.from_str(self._json)
            windower.no_padding()
            strategy = "only_second" if paired else "only_first"
            windower.enable_truncation(self.max_length, stride=stride, strategy=strategy)
            self._windowers[stride, paired] = windower
        return self._windowers[stride, paired]

    def _check_room(self, rows: Sequence[tuple[Any, Any]], stride: int) -> None:
        # Each window must bring more than it shares with the one before, or there is no end to them.
        whole = self.max_length - self._cutter.num_special_tokens_to_add(True)
        most = whole - stride - 1
        for index, (first, second) in enumerate(rows):
            if len(first) > most and len(first) + len(second) > whole:
                raise NoRoomError(index, num_tokens=len(first), most=most)

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


def _windows(encoding: Any) -> tuple[Tokens, ...]:
    first = _window(encoding)
    # tokenizers 0.23 gives the second text's type to the first window alone where both were read apart.
    types = dict(zip(encoding.sequence_ids, encoding.type_ids, strict=True))
    return (first, *(_window(part, second_type=types.get(1, 0)) for part in encoding.overflowing))


def _window(encoding: Any, *, second_type: int | None = None) -> Tokens:
    # tokenizers 0.23 forgets which text the tokens of the first one are of where nothing is cut.
    sequences = [
        (SPECIAL if special else 0) if s is None else s
        for s, special in zip(encoding.sequence_ids, encoding.special_tokens_mask, strict=True)
    ]
    words = [SPECIAL if w is None else w for w in encoding.word_ids]
    types = encoding.type_ids
    if second_type is not None:
        types = [second_type if s == 1 else kind for s, kind in zip(sequences, types, strict=True)]
    return Tokens(encoding.ids, types, spans=Spans(encoding.offsets, sequences, words))


def pad(rows: Sequence[Tokens], length: int, pad_id: int, *, batch: int = 0) -> dict[str, Array]:
    """Returns input_ids, attention_mask and token_type_ids `(batch, length)`, int64, padded on the right,
    and the rows' parameters `(batch, 1)`, int64 or float32.

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
    tensors: dict[str, Array] = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return tensors | _parameters(rows, shape[0])


def _parameters(rows: Sequence[Tokens], batch: int) -> dict[str, Array]:
    """Returns the rows' parameters; rows of padding have those of the last row."""
    padded = [*rows, *[rows[-1]] * (batch - len(rows))]
    return {
        name: np.array(
            [[row.parameters[name]] for row in padded], np.float32 if isinstance(value, float) else np.int64
        )
        for name, value in rows[0].parameters.items()
    }
