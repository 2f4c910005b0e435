"""A model's outputs over a split, and the metrics that the task makes of them.

Knows how to run a model in fp32; knows nothing about what its outputs mean.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from services.tasks import Task
from services.tasks.base import FloatArray
from services.tasks.encoding import Tokens
from services.trainer.features import Features, to_tensors

_TOKENS_AT_ONCE = 4096


class Predictor:
    """Runs a model in fp32 without gradients. `names` are the inputs that it takes."""

    def __init__(self, model: Any, task: Task, *, names: Sequence[str], pad_id: int) -> None:
        self._model = model
        self._outputs = [spec.name for spec in task.outputs]
        self._names = names
        self._pad_id = pad_id

    def __call__(self, tokens: Sequence[Tokens]) -> dict[str, FloatArray]:
        """Returns each output of one batch, fp32, the batch axis first."""
        self._model.eval()
        with torch.inference_mode():
            inputs = to_tensors(tokens, self._names, self._pad_id)
            result = self._model(**{name: value.to(self._model.device) for name, value in inputs.items()})
        return {name: result[name].float().cpu().numpy() for name in self._outputs}

    def split(
        self, features: Features, *, stop: Callable[[], bool] = lambda: False
    ) -> dict[str, FloatArray] | None:
        """Returns each output over a whole split, in its order; None if `stop` said so in between."""
        batches = batches_by_length(features.lengths, _TOKENS_AT_ONCE)
        found: list[dict[str, FloatArray]] = []
        for batch in batches:
            if stop():
                return None
            found.append(self([features.tokens(i) for i in batch]))
        order = np.argsort(np.concatenate(batches))
        return {name: np.concatenate([f[name] for f in found])[order] for name in self._outputs}


def batches_by_length(lengths: Sequence[int], tokens_at_once: int) -> list[list[int]]:
    """Returns all indices, longest first, in batches of at most `tokens_at_once` padded tokens."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or lengths[batches[-1][0]] * (len(batches[-1]) + 1) > tokens_at_once:
            batches.append([])
        batches[-1].append(i)
    return batches
