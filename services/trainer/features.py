"""Examples to tokens, and tokens to batches of like length.

Knows tokens and batches; knows nothing about models or files.
"""

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from services.tasks import Example
from services.tasks.base import IntArray
from services.tasks.encoding import Encoder, Tokens, pad

_ENCODE_AT_ONCE = 1000
_GROUPS_SORTED_TOGETHER = 50


class Features(Dataset[tuple[Tokens, Any]]):
    """The tokens and targets of a split, in the order of its examples. 5 bytes a token: texts are many."""

    def __init__(self, examples: Sequence[Example], targets: IntArray, encoder: Encoder) -> None:
        self.targets = targets
        self._ids: list[np.ndarray[Any, np.dtype[np.int32]]] = []
        self._types: list[np.ndarray[Any, np.dtype[np.int8]]] = []
        self._truncated: list[bool] = []
        for start in range(0, len(examples), _ENCODE_AT_ONCE):
            for tokens in encode(encoder, examples[start : start + _ENCODE_AT_ONCE]):
                self._ids.append(np.asarray(tokens.input_ids, dtype=np.int32))
                self._types.append(np.asarray(tokens.token_type_ids, dtype=np.int8))
                self._truncated.append(tokens.truncated)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> tuple[Tokens, Any]:
        return self.tokens(index), self.targets[index]

    def tokens(self, index: int) -> Tokens:
        """Returns the tokens of one example."""
        return Tokens(self._ids[index].tolist(), self._types[index].tolist(), self._truncated[index])

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example, after truncation."""
        return [len(ids) for ids in self._ids]

    @property
    def num_truncated(self) -> int:
        """How many examples lost tokens to truncation."""
        return sum(self._truncated)


class LengthGroupedBatches(Sampler[list[int]]):
    """Yields batches of examples of like length, in an order that seed and epoch alone decide.

    That order must survive a restart: a resumed epoch skips the batches it had. One optimizer step's
    batches are cut from one group, so that the order does not depend on how a step is accumulated.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, accumulation: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._group_size = batch_size * accumulation
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets which epoch the next iteration is of, from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self._lengths) / self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rng = random.Random(f"{self._seed} {self._epoch}")
        for group in self._groups(rng):
            for start in range(0, len(group), self._batch_size):
                yield group[start : start + self._batch_size]

    def _groups(self, rng: random.Random) -> list[list[int]]:
        order = rng.sample(range(len(self._lengths)), len(self._lengths))
        pool = self._group_size * _GROUPS_SORTED_TOGETHER
        groups = []
        for start in range(0, len(order), pool):
            like = sorted(order[start : start + pool], key=lambda i: self._lengths[i])
            groups += [like[i : i + self._group_size] for i in range(0, len(like), self._group_size)]
        whole = [group for group in groups if len(group) == self._group_size]
        rng.shuffle(whole)
        # The rest comes last: in the middle it would shift what counts as one step.
        return whole + [group for group in groups if len(group) < self._group_size]


def encode(encoder: Encoder, examples: Sequence[Example]) -> list[Tokens]:
    """Returns the tokens of each example's text or pair."""
    pairs = [e.text_pair for e in examples]
    return encoder.encode([e.text for e in examples], pairs if any(pairs) else ())


def to_tensors(tokens: Sequence[Tokens], names: Sequence[str], pad_id: int) -> dict[str, torch.Tensor]:
    """Returns the inputs `names` as tensors `(batch, longest)`, padded on the right."""
    arrays = pad(tokens, max(map(len, tokens)), pad_id)
    return {name: torch.from_numpy(arrays[name]) for name in names}
