"""How two series of numbers go together.

Knows arithmetic; knows nothing about tasks.
"""

import math

import numpy as np

from services.tasks.tensors import Array


def correlation_metrics(values: Array, targets: Array) -> dict[str, float]:
    """Returns Spearman's and Pearson's correlation in [-1, 1]; 0 where either side is constant."""
    return {
        "spearman": correlation(ranks(values), ranks(targets)),
        "pearson": correlation(values, targets),
    }


def ranks(values: Array) -> Array:
    """Returns the ranks of values, from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def correlation(a: Array, b: Array) -> float:
    """Returns Pearson's correlation, 0 where one side does not vary."""
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale else 0.0
