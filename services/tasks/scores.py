"""Logits to probabilities.

Knows arithmetic; knows nothing about tasks.
"""

import math
from collections.abc import Sequence

import numpy as np

from conch.v1 import inference_pb2
from services.tasks.tensors import FloatArray


def best_labels(logits: FloatArray, labels: Sequence[str], top_k: int) -> list[inference_pb2.LabelScore]:
    """Returns the `top_k` best labels (0 = all), best first, by softmax over one row of logits `(label,)`."""
    # Plain Python: on a handful of labels numpy's seven calls cost three times as much.
    values: list[float] = logits.tolist()
    highest = max(values)
    weights = [math.exp(value - highest) for value in values]
    total = sum(weights)
    return ranked([weight / total for weight in weights], labels, top_k)


def ranked(scores: Sequence[float], labels: Sequence[str], top_k: int) -> list[inference_pb2.LabelScore]:
    """Returns the `top_k` labels (0 = all) of the greatest scores, best first."""
    best = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[: top_k or None]
    return [inference_pb2.LabelScore(label=labels[i], score=scores[i]) for i in best]


def softmax(logits: FloatArray) -> FloatArray:
    """Returns probabilities over the last axis, shifted by the maximum so that nothing overflows."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)


def sigmoid(logits: FloatArray) -> FloatArray:
    """Returns each logit's own probability; nothing overflows."""
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, small) / (1 + small), dtype=np.float32)
