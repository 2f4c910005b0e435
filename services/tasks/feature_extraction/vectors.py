"""Vectors of texts as numpy sees them: taken out of answers, scaled to length 1, compared by their angles.

Knows the output that carries them; knows nothing about requests or metrics.
"""

from collections.abc import Sequence

import numpy as np

from services.tasks.tensors import Answer, FloatArray, stacked

VECTOR = "sentence_embedding"
"""The output, as sentence-transformers calls it; torch's exporter calls word vectors "embedding"."""


class NonFiniteVectorError(ArithmeticError):
    """A model gave NaN or infinity. No caller's fault and no passing one: a bug, INTERNAL at the edge."""


def vectors_of(answers: Sequence[Answer]) -> FloatArray:
    """Returns the vectors of examples of one window each `(example, dimension)`.

    Raises NonFiniteVectorError.
    """
    vectors = stacked(answers, VECTOR)
    broken = int((~np.isfinite(vectors).all(axis=1)).sum())
    if broken:
        raise NonFiniteVectorError(f"{broken} of {len(vectors)} vectors hold NaN or infinity")
    return vectors


def unit(vectors: FloatArray) -> FloatArray:
    """Returns vectors scaled to length 1, `(..., dimension)`; the zero vector stays what it is."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # infinity becomes NaN, which its caller looks for
        return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def cosines(queries: FloatArray, passages: FloatArray) -> FloatArray:
    """Returns the cosine of the angle between each query and each passage, `(query, passage)`, in [-1, 1]."""
    return np.asarray(np.clip(unit(queries) @ unit(passages).T, -1.0, 1.0), dtype=np.float32)
