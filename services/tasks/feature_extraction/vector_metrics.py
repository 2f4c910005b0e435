"""How good vectors are: where the right passage ranks.

Knows numpy; knows nothing about examples or models.
"""

from collections.abc import Sequence

import numpy as np

from services.tasks.feature_extraction.vectors import cosines
from services.tasks.tensors import Array, FloatArray

_ROWS_AT_ONCE = 512
_DEPTH = 10


def ranking_metrics(
    queries: FloatArray, passages: FloatArray, relevant: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Returns recall at 1 and 10, mean reciprocal rank and NDCG at 10, all in [0, 1].

    `queries` and `passages` are `(n, dimension)`; `relevant[i]` are the passages that are right for query i.
    A tie counts against the model, or one that gives all texts the same vector would be perfect.
    """
    ranks = _ranks(queries, passages, relevant)
    return {
        "recall_at_1": float(np.mean([(found <= 1).mean() for found in ranks])),
        "recall_at_10": float(np.mean([(found <= _DEPTH).mean() for found in ranks])),
        "mrr": float(np.mean([1 / found[0] for found in ranks])),
        "ndcg_at_10": float(np.mean([_ndcg(found) for found in ranks])),
    }


def _ranks(queries: FloatArray, passages: FloatArray, relevant: Sequence[Sequence[int]]) -> list[Array]:
    """Returns the ranks of each query's right passages, from 1, best first."""
    ranks = []
    for start in range(0, len(queries), _ROWS_AT_ONCE):
        rows = cosines(queries[start : start + _ROWS_AT_ONCE], passages)
        for row, right in zip(rows, relevant[start:], strict=False):
            # NaN is not less than anything, so that it ranks last and before nobody.
            ranks.append(np.sort([(~(row < row[i])).sum() for i in right]))
    return ranks


def _ndcg(ranks: Array) -> float:
    gained = (1 / np.log2(1 + ranks[ranks <= _DEPTH])).sum()
    best = (1 / np.log2(1 + np.arange(1, min(len(ranks), _DEPTH) + 1))).sum()
    return float(gained / best)
