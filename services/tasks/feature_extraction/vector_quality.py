"""The metrics of a model's vectors on labelled examples, whatever the labels are.

Knows pairs, triplets and scored pairs; the figures themselves are in `vector_metrics`.
"""

from collections.abc import Sequence

import numpy as np

from services.tasks.correlations import correlation_metrics
from services.tasks.example import Example
from services.tasks.feature_extraction.vector_metrics import ranking_metrics
from services.tasks.feature_extraction.vectors import VECTOR, unit
from services.tasks.tensors import Answer, FloatArray


def measure(
    examples: Sequence[Example], answers: Sequence[Answer], size: int | None = None
) -> dict[str, float]:
    """Returns metrics of answers of two windows an example, three for triplets; vectors cut to `size`."""
    vectors = _vectors(answers, size)
    if "score" in examples[0].target:
        scores = np.array([example.target["score"] for example in examples])
        return correlation_metrics(_rowwise(vectors[0], vectors[1]), scores)
    metrics = _ranking(examples, vectors)
    if len(vectors) > 2:
        right = _rowwise(vectors[0], vectors[1]) > _rowwise(vectors[0], vectors[2])
        metrics["triplet_accuracy"] = float(right.mean())
    return metrics


def _vectors(answers: Sequence[Answer], size: int | None) -> list[FloatArray]:
    """Returns one matrix `(example, dimension)` a text of an example, of rows of length 1."""
    return [unit(np.stack([answer[i][VECTOR][:size] for answer in answers])) for i in range(len(answers[0]))]


def _rowwise(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray((a * b).sum(axis=1), dtype=np.float32)


def _ranking(examples: Sequence[Example], vectors: Sequence[FloatArray]) -> dict[str, float]:
    """Ranks all second texts and negatives of the split; a text that stands there twice is one."""
    passages: dict[str, FloatArray] = {}
    queries: dict[str, FloatArray] = {}
    partners: dict[str, set[str]] = {}
    for i, example in enumerate(examples):
        text, pair = example.text.strip(), example.text_pair.strip()
        queries.setdefault(text, vectors[0][i])
        passages.setdefault(pair, vectors[1][i])
        partners.setdefault(text, set()).add(pair)
        if len(vectors) > 2:
            passages.setdefault(example.target["negative"].strip(), vectors[2][i])
    places = {text: i for i, text in enumerate(passages)}
    relevant = [[places[pair] for pair in partners[text]] for text in queries]
    return ranking_metrics(np.stack([*queries.values()]), np.stack([*passages.values()]), relevant)
