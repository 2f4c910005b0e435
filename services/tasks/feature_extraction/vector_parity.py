"""How far a converted model's vectors are from the trained model's, and how far they may be.

Knows vectors of pairs; knows nothing about how models run.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from conch.v1 import job_pb2
from services.tasks.example import Example
from services.tasks.feature_extraction.vectors import VECTOR, cosines, unit
from services.tasks.tensors import Answer, Array, FloatArray

# A passage that the trained model likes less than its best by no more than this is as good: texts that
# differ in white space only have the same vector but for rounding.
_TIE = 1e-5


def _limits(*, difference: float, distance: float, flips: float) -> dict[str, float]:
    return {
        "max_abs_difference": difference,
        "max_cosine_distance": distance,
        "rank_flip_rate": flips,
        "num_nonfinite": 0.0,
    }


# Measured with MiniLM: see docs/adr/0009-parity-limits-of-vectors.md.
LIMITS: Mapping[int, Mapping[str, float]] = {
    job_pb2.PRECISION_FP32: _limits(difference=1e-4, distance=1e-5, flips=0.002),
    job_pb2.PRECISION_BF16: _limits(difference=0.03, distance=0.01, flips=0.02),
    job_pb2.PRECISION_INT8: _limits(difference=0.1, distance=0.05, flips=0.1),
}


def compare(
    examples: Sequence[Example], reference: Sequence[Answer], candidate: Sequence[Answer]
) -> dict[str, float]:
    """Returns the parity figures, all 0 for equal vectors.

    `max_abs_difference` is between numbers of vectors that are scaled so that the reference has length 1;
    `max_cosine_distance` is 1 - cosine of the text that turned most; `rank_flip_rate` the share of texts
    whose best second text among all is another than before.
    """
    want, got = _all(reference), _all(candidate)
    finite = np.isfinite(got).all(axis=1)
    return {
        "max_abs_difference": _worst(_differences(want[finite], got[finite])),
        "max_cosine_distance": _worst(_distances(want[finite], got[finite])),
        "rank_flip_rate": _flip_rate(examples, reference, candidate),
        "num_nonfinite": float((~np.isfinite(got)).sum()),
    }


def _all(answers: Sequence[Answer]) -> FloatArray:
    return np.stack([row[VECTOR] for answer in answers for row in answer])


def _worst(values: Array) -> float:
    return float(values.max()) if values.size else float("inf")


def _differences(want: FloatArray, got: FloatArray) -> Array:
    lengths = np.linalg.norm(want, axis=1, keepdims=True)
    return np.asarray(np.abs(want - got) / np.where(lengths > 0, lengths, 1))


def _distances(want: FloatArray, got: FloatArray) -> Array:
    return np.asarray(np.maximum(0.0, 1.0 - (unit(want).astype(np.float64) * unit(got)).sum(axis=1)))


def _flip_rate(
    examples: Sequence[Example], reference: Sequence[Answer], candidate: Sequence[Answer]
) -> float:
    want, best = _similarities(examples, reference), _similarities(examples, candidate).argmax(axis=1)
    lost = want.max(axis=1) - want[np.arange(len(want)), best]
    broken = [not all(np.isfinite(row[VECTOR]).all() for row in answer) for answer in candidate]
    return float(((lost > _TIE) | np.array(broken)).mean())


def _similarities(examples: Sequence[Example], answers: Sequence[Answer]) -> FloatArray:
    """Returns the cosines of each text and each different second text, `(example, passage)`."""
    passages: dict[str, FloatArray] = {}
    for example, answer in zip(examples, answers, strict=True):
        passages.setdefault(example.text_pair.strip(), answer[min(1, len(answer) - 1)][VECTOR])
    return cosines(np.stack([answer[0][VECTOR] for answer in answers]), np.stack([*passages.values()]))
