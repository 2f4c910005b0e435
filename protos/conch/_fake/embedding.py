"""The fake gateway's vectors, and what is ranked by them.

Knows how vectors are packed; knows nothing about calls or sockets.
"""

import math
from array import array
from collections.abc import Sequence

from conch._fake.noise import tokens_of, vector
from conch._fake.store import SetAnswers
from conch.errors import FieldViolation, InvalidArgument
from conch.v1 import inference_pb2

_INT8 = inference_pb2.VECTOR_TYPE_INT8


def embed(request: inference_pb2.EmbedRequest, answers: SetAnswers) -> inference_pb2.EmbedResponse:
    """Returns the vectors set, else vectors of length 1. Raises InvalidArgument for too many dimensions."""
    if request.num_dimensions > answers.num_dimensions:
        found = f"is {request.num_dimensions}, the model has {answers.num_dimensions}"
        violation = FieldViolation("num_dimensions", found)
        message = f"num_dimensions: {found}"
        raise InvalidArgument(message, reason="TOO_MANY_DIMENSIONS", field_violations=(violation,))
    rows = []
    for text in request.texts:
        packed, scale = _packed(_numbers(text, answers, request.num_dimensions), request.vector_type)
        rows.append(inference_pb2.Embedding(vector=packed, scale=scale, tokens=tokens_of(text)))
    return inference_pb2.EmbedResponse(
        embeddings=rows,
        vector_type=request.vector_type or inference_pb2.VECTOR_TYPE_FLOAT32,
        num_dimensions=request.num_dimensions or answers.num_dimensions,
    )


def rank(request: inference_pb2.RankRequest, answers: SetAnswers) -> inference_pb2.RankResponse:
    """Returns the candidates by the number set for each, else by the cosine with the query."""
    query = _numbers(request.query, answers)
    ranked = [
        inference_pb2.RankedCandidate(
            index=i, score=_score(query, candidate, answers), tokens=tokens_of(candidate)
        )
        for i, candidate in enumerate(request.candidates)
    ]
    ranked.sort(key=lambda candidate: -candidate.score)
    return inference_pb2.RankResponse(ranked=ranked[: request.top_k or None])


def _score(query: Sequence[float], candidate: str, answers: SetAnswers) -> float:
    if candidate in answers.numbers:
        return answers.numbers[candidate]
    numbers = _numbers(candidate, answers)
    dot = sum(a * b for a, b in zip(query, numbers, strict=True))
    return dot / (_length(query) * _length(numbers))


def _numbers(text: str, answers: SetAnswers, size: int = 0) -> list[float]:
    if text in answers.vectors and not size:
        return answers.vectors[text]
    numbers = answers.vectors.get(text) or vector(text, answers.num_dimensions)
    cut = numbers[: size or None]
    length = _length(cut)
    return [number / length for number in cut]


def _length(numbers: Sequence[float]) -> float:
    return math.hypot(*numbers) or 1.0


def _packed(numbers: Sequence[float], vector_type: int) -> tuple[bytes, float]:
    """Returns the vector as it stands on the wire, and its scale."""
    if vector_type != _INT8:
        return array("f", numbers).tobytes(), 1.0
    scale = max(map(abs, numbers)) / 127 or 1.0
    return array("b", [round(number / scale) for number in numbers]).tobytes(), scale
