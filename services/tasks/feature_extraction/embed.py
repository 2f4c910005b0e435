"""The rpc Embed over vectors: cut, scaled and packed as the request wants them.

Knows requests and vectors; knows nothing about how models are trained or run.
"""

from collections.abc import Sequence

import numpy as np

from conch.v1 import inference_pb2
from services.errors import InvalidRequest
from services.tasks.example import Encoded, Example
from services.tasks.feature_extraction.vectors import unit, vectors_of
from services.tasks.rpcs import Served, TextField, input_tokens
from services.tasks.tensors import Answer, Array, FloatArray

_INT8_MAX = 127
_KINDS = inference_pb2.EmbedRequest.Kind


class Embed:
    """Vectors of texts."""

    def texts(self, request: inference_pb2.EmbedRequest) -> Sequence[TextField]:
        """One field."""
        return (TextField("texts", request.texts),)

    def examples(self, request: inference_pb2.EmbedRequest, served: Served) -> list[Example]:
        """One a text, with the prefix of its kind."""
        if request.kind not in _KINDS.values():
            raise InvalidRequest.field("kind", f"there is no kind {request.kind}", reason="UNKNOWN_KIND")
        if request.vector_type not in inference_pb2.VectorType.values():
            message = f"there is no vector type {request.vector_type}"
            raise InvalidRequest.field("vector_type", message, reason="UNKNOWN_VECTOR_TYPE")
        spec = served.facts.spec.feature_extraction
        is_query = request.kind == inference_pb2.EmbedRequest.KIND_QUERY
        prefix = spec.query_prefix if is_query else spec.passage_prefix
        return [Example(prefix + text, "", None, row) for row, text in enumerate(request.texts, start=1)]

    def respond(
        self,
        request: inference_pb2.EmbedRequest,
        encoded: Sequence[Encoded],
        answers: Sequence[Answer],
        served: Served,
    ) -> inference_pb2.EmbedResponse:
        """Packed vectors. Raises InvalidRequest if they are too short, NonFiniteVectorError."""
        vectors = _cut(vectors_of(answers), request.num_dimensions)
        if served.facts.spec.feature_extraction.normalize:
            # Those that are not cut too: a model that computes in bf16 gives lengths of 1 within 0.01.
            vectors = unit(vectors)
        as_bytes = request.vector_type == inference_pb2.VECTOR_TYPE_INT8
        packed, scales = _int8(vectors) if as_bytes else _float32(vectors)
        return inference_pb2.EmbedResponse(
            embeddings=[
                inference_pb2.Embedding(vector=vector, scale=scale, tokens=input_tokens(read.windows))
                for vector, scale, read in zip(packed, scales, encoded, strict=True)
            ],
            vector_type=request.vector_type or inference_pb2.VECTOR_TYPE_FLOAT32,
            num_dimensions=vectors.shape[1],
        )


def _cut(vectors: FloatArray, num_dimensions: int) -> FloatArray:
    if num_dimensions > vectors.shape[1]:
        message = f"{num_dimensions} wanted, the model's vectors have {vectors.shape[1]}"
        raise InvalidRequest.field("num_dimensions", message, reason="TOO_MANY_DIMENSIONS")
    return vectors[:, : num_dimensions or None]


def _float32(vectors: FloatArray) -> tuple[list[bytes], list[float]]:
    return _rows(vectors.astype("<f4")), [1.0] * len(vectors)


def _int8(vectors: FloatArray) -> tuple[list[bytes], list[float]]:
    largest = np.abs(vectors).max(axis=1)
    scales = np.where(largest > 0, largest / _INT8_MAX, 1).astype(np.float32)
    return _rows(np.rint(vectors / scales[:, None]).astype(np.int8)), scales.tolist()


def _rows(matrix: Array) -> list[bytes]:
    """Returns the bytes of each row; one copy for all and one slice each, however many numbers there are."""
    data, size = matrix.tobytes(), matrix.shape[1] * matrix.itemsize
    return [data[start : start + size] for start in range(0, len(data), size)]
