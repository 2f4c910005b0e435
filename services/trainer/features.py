"""Examples to tokens, and tokens to batches of like length.

Knows tokens and batches; knows nothing about models or files.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from services.tasks import Encoded, Example, Facts, Task
from services.tasks.encoding import Encoder, Spans, Tokens, pad
from services.tasks.tensors import IGNORED, Array

_ENCODE_AT_ONCE = 1000
_GROUPS_SORTED_TOGETHER = 50

Item = tuple[Sequence[Tokens], Mapping[str, Array]]


class Features(Dataset[Item]):
    """The windows and targets of a split, in the order of its examples.

    An item, which is what is trained on, is one window, or all windows of an example where the task is
    grouped. 5 bytes a token: texts are many.
    """

    def __init__(self, examples: Sequence[Example], task: Task, encoder: Encoder, facts: Facts) -> None:
        self.examples = examples
        self._windows = _Windows()
        self._of_example: list[range] = []
        self._items: list[range] = []
        self._targets: list[dict[str, Array]] = []
        for start in range(0, len(examples), _ENCODE_AT_ONCE):
            for encoded in task.encode(encoder, examples[start : start + _ENCODE_AT_ONCE], facts):
                self._add(encoded, task.targets(encoded, facts), grouped=task.grouped)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Item:
        return [self._windows[i] for i in self._items[index]], self._targets[index]

    def encoded(self, index: int) -> Encoded:
        """Returns an example as the model reads it."""
        return Encoded(self.examples[index], [self._windows[i] for i in self._of_example[index]])

    @property
    def lengths(self) -> list[int]:
        """Tokens of each item's longest window."""
        lengths = self._windows.lengths
        return [max(lengths[i] for i in item) for item in self._items]

    @property
    def example_lengths(self) -> list[int]:
        """Tokens of each example, all windows together."""
        lengths = self._windows.lengths
        return [sum(lengths[i] for i in windows) for windows in self._of_example]

    @property
    def num_truncated(self) -> int:
        """How many examples lost tokens to truncation."""
        return sum(any(self._windows.truncated[i] for i in windows) for windows in self._of_example)

    def _add(self, encoded: Encoded, targets: list[dict[str, Array]], *, grouped: bool) -> None:
        first = len(self._windows)
        for window in encoded.windows:
            self._windows.add(window)
        windows = range(first, len(self._windows))
        self._of_example.append(windows)
        self._items += [windows] if grouped else [range(i, i + 1) for i in windows]
        self._targets += targets


class _Windows:
    """Many Tokens in little memory."""

    def __init__(self) -> None:
        self.truncated: list[bool] = []
        self._ids: list[Array] = []
        self._types: list[Array] = []
        self._parameters: list[Mapping[str, float]] = []
        self._spans: list[tuple[Array, Array, Array] | None] = []

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Tokens:
        return Tokens(
            self._ids[index].tolist(),
            self._types[index].tolist(),
            self.truncated[index],
            self._parameters[index],
            _unpacked(self._spans[index]),
        )

    @property
    def lengths(self) -> list[int]:
        """Tokens of each window."""
        return [len(ids) for ids in self._ids]

    def add(self, tokens: Tokens) -> None:
        """Takes one window in."""
        self._ids.append(np.asarray(tokens.input_ids, dtype=np.int32))
        self._types.append(np.asarray(tokens.token_type_ids, dtype=np.int8))
        self.truncated.append(tokens.truncated)
        self._parameters.append(tokens.parameters)
        self._spans.append(_packed(tokens.spans))


def _packed(spans: Spans | None) -> tuple[Array, Array, Array] | None:
    if spans is None:
        return None
    return (
        np.asarray(spans.offsets, dtype=np.int32).reshape(-1, 2),
        np.asarray(spans.sequence_ids, dtype=np.int8),
        np.asarray(spans.word_ids, dtype=np.int32),
    )


def _unpacked(packed: tuple[Array, Array, Array] | None) -> Spans | None:
    if packed is None:
        return None
    offsets, sequences, words = packed
    return Spans([(start, end) for start, end in offsets.tolist()], sequences.tolist(), words.tolist())


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


def to_tensors(tokens: Sequence[Tokens], names: Sequence[str], pad_id: int) -> dict[str, torch.Tensor]:
    """Returns the inputs `names` as tensors `(batch, longest)`, padded on the right."""
    arrays = pad(tokens, max(map(len, tokens)), pad_id)
    return {name: torch.from_numpy(arrays[name]) for name in names}


def collate(items: Sequence[Item], names: Sequence[str], pad_id: int) -> dict[str, torch.Tensor]:
    """Returns inputs and targets of a batch of items.

    Items of several windows give the first windows of all items, then the second ones, and so on.
    """
    windows = [window for group in zip(*(tokens for tokens, _ in items), strict=True) for window in group]
    targets = {name: _joined([found[name] for _, found in items]) for name in items[0][1]}
    return to_tensors(windows, names, pad_id) | targets


def _joined(rows: Sequence[Array]) -> torch.Tensor:
    longest = max(row.shape[0] if row.ndim else 0 for row in rows)
    if longest and any(row.shape[0] < longest for row in rows):
        rows = [np.pad(row, (0, longest - len(row)), constant_values=IGNORED) for row in rows]
    return torch.from_numpy(np.stack(rows))
