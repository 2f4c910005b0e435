"""The rpc Rank: by the similarity of vectors, or by a cross-encoder's score of each pair.

Knows requests, vectors and logits; knows nothing about how models are trained or run.
"""

from collections.abc import Sequence

import numpy as np

from conch.v1 import inference_pb2, tasks_pb2
from services.tasks.example import Encoded, Example, Facts
from services.tasks.feature_extraction.vectors import cosines, vectors_of
from services.tasks.rpcs import Served, TextField, input_tokens
from services.tasks.scores import sigmoid, softmax
from services.tasks.tensors import Answer, Array, FloatArray, stacked

_Problem = tasks_pb2.TextClassificationSpec


def _texts(request: inference_pb2.RankRequest) -> Sequence[TextField]:
    query = TextField("query", [request.query], is_single=True)
    return query, TextField("candidates", request.candidates)


class Rank:
    """Candidates in the order of the cosine between their vectors and the query's."""

    def texts(self, request: inference_pb2.RankRequest) -> Sequence[TextField]:
        """The query and its candidates."""
        return _texts(request)

    def examples(self, request: inference_pb2.RankRequest, served: Served) -> list[Example]:
        """The query first, then one a candidate: all in one batch."""
        spec = served.facts.spec.feature_extraction
        texts = [spec.query_prefix + request.query]
        texts += [spec.passage_prefix + candidate for candidate in request.candidates]
        return [Example(text, "", None, row) for row, text in enumerate(texts)]

    def respond(
        self,
        request: inference_pb2.RankRequest,
        encoded: Sequence[Encoded],
        answers: Sequence[Answer],
        served: Served,
    ) -> inference_pb2.RankResponse:
        """Best first. Raises NonFiniteVectorError."""
        vectors = vectors_of(answers)
        return _ranked(request, encoded[1:], cosines(vectors[:1], vectors[1:])[0])


class CrossRank:
    """Candidates in the order of the scores that a model of pairs gives them with the query."""

    def texts(self, request: inference_pb2.RankRequest) -> Sequence[TextField]:
        """The query and its candidates."""
        return _texts(request)

    def examples(self, request: inference_pb2.RankRequest, served: Served) -> list[Example]:
        """One pair a candidate."""
        return [Example(request.query, c, None, row) for row, c in enumerate(request.candidates, start=1)]

    def respond(
        self,
        request: inference_pb2.RankRequest,
        encoded: Sequence[Encoded],
        answers: Sequence[Answer],
        served: Served,
    ) -> inference_pb2.RankResponse:
        """Best first."""
        return _ranked(request, encoded, pair_scores(stacked(answers, "logits"), served.facts))


def pair_scores(logits: FloatArray, facts: Facts) -> Array:
    """Returns the score of each row of logits `(pair, label)`: the value of a regression, the sigmoid of a
    single logit or of the last label among many that may fit, else the last label's probability."""
    kind, last = facts.spec.text_classification.problem_type, logits[:, -1]
    if kind == _Problem.PROBLEM_TYPE_REGRESSION:
        return last
    if kind == _Problem.PROBLEM_TYPE_MULTI_LABEL or logits.shape[1] == 1:
        return sigmoid(last)
    return softmax(logits)[:, -1]


def _ranked(
    request: inference_pb2.RankRequest, candidates: Sequence[Encoded], scores: Array
) -> inference_pb2.RankResponse:
    if not np.isfinite(scores).all():
        raise ArithmeticError("a candidate's score is NaN or infinite")
    # Stable: of equal scores the first candidate comes first.
    best = np.argsort(-scores, kind="stable")[: request.top_k or None]
    return inference_pb2.RankResponse(
        ranked=[
            inference_pb2.RankedCandidate(
                index=i, score=scores[i], tokens=input_tokens(candidates[i].windows)
            )
            for i in best.tolist()
        ]
    )
