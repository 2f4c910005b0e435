"""A model's answers over a split.

Knows how to run a model in fp32; knows nothing about what its outputs mean.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from services.tasks import Encoded, Task
from services.tasks.encoding import Tokens
from services.tasks.example import grouped
from services.tasks.tensors import Answer, Row, row_of
from services.trainer.features import Features, to_tensors


class Predictor:
    """Runs a model in fp32 without gradients. `names` are the inputs that it takes."""

    tokens_at_once = 4096
    """In a batch of a split, padding counted."""

    def __init__(self, model: Any, task: Task, *, names: Sequence[str], pad_id: int) -> None:
        self.model = model
        self.names = names
        self.pad_id = pad_id
        self._outputs = task.outputs

    def __call__(self, tokens: Sequence[Tokens]) -> list[Row]:
        """Returns the outputs of each window of one batch."""
        self.model.eval()
        with torch.inference_mode():
            inputs = to_tensors(tokens, self.names, self.pad_id)
            result = self.model(**{name: value.to(self.model.device) for name, value in inputs.items()})
        arrays = {spec.name: result[spec.name].float().cpu().numpy() for spec in self._outputs}
        return [row_of(arrays, i, len(window), self._outputs) for i, window in enumerate(tokens)]

    def split(
        self, features: Features, *, stop: Callable[[], bool] = lambda: False
    ) -> tuple[list[Encoded], list[Answer]] | None:
        """Returns the examples of a split and the answers to them; None if `stop` said so in between."""
        encoded = [features.encoded(i) for i in range(len(features.examples))]
        windows = [window for one in encoded for window in one.windows]
        rows: list[Row | None] = [None] * len(windows)
        for batch in batches_by_length([len(window) for window in windows], self.tokens_at_once):
            if stop():
                return None
            for i, row in zip(batch, self([windows[i] for i in batch]), strict=True):
                rows[i] = row
        return encoded, grouped(encoded, (row for row in rows if row is not None))


def batches_by_length(lengths: Sequence[int], tokens_at_once: int) -> list[list[int]]:
    """Returns all indices, longest first, in batches of at most `tokens_at_once` padded tokens."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or lengths[batches[-1][0]] * (len(batches[-1]) + 1) > tokens_at_once:
            batches.append([])
        batches[-1].append(i)
    return batches
