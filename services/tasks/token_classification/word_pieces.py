"""Which tokens go on with the word before them, as transformers' TokenClassificationPipeline has it.

Knows tokenizer.json; knows nothing about models. Followed: `gather_pre_entities` of transformers 5.23.0,
src/transformers/pipelines/token_classification.py.
"""

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer


class WordPieces:
    """The words of one tokenizer.

    Where its model marks continuations (WordPiece's "##"), a token goes on if its text is not as long as
    what it stands for. Elsewhere only a space parts words: punctuation belongs to the word before it.
    """

    def __init__(self, tokenizer_json: str) -> None:
        tokenizer, model = Tokenizer.from_str(tokenizer_json), json.loads(tokenizer_json)["model"]
        self._unknown = _unknown_id(tokenizer, model)
        self._lengths: list[int] | None = None
        if model.get("continuing_subword_prefix"):
            self._lengths = _lengths(tokenizer)

    def continuations(self, ids: Sequence[int], offsets: Sequence[tuple[int, int]], text: str) -> list[bool]:
        """Returns for each token of `text` whether it goes on with a word; an unknown one never does."""
        if self._lengths is not None:
            lengths, unknown = self._lengths, self._unknown
            return [
                token != unknown and lengths[token] != end - start
                for token, (start, end) in zip(ids, offsets, strict=True)
            ]
        return [
            token != self._unknown and start > 0 and " " not in text[start - 1 : start + 1]
            for token, (start, _) in zip(ids, offsets, strict=True)
        ]


def _unknown_id(tokenizer: Tokenizer, model: dict[str, Any]) -> int:
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    found = tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None
    return -1 if found is None else found


def _lengths(tokenizer: Tokenizer) -> list[int]:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    lengths = [0] * (max(vocabulary.values()) + 1)
    for token, number in vocabulary.items():
        lengths[number] = len(token)
    return lengths
