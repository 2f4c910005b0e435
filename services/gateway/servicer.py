"""conch.v1.InferenceService: one rpc a task, each the same path with the task's own facts.

Knows requests and responses; the path itself is `services.gateway.answering`.
"""

from collections.abc import Sequence

from conch.v1 import inference_pb2, inference_pb2_grpc
from services.gateway.answering import Answering, Texts
from services.gateway.batching import Row
from services.gateway.warming import ServedVersion
from services.interceptors import Context
from services.tasks.encoding import Tokens
from services.tasks.text_classification import TextClassification


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Typed answers; every rpc is documented in inference.proto."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    async def Classify(
        self, request: inference_pb2.ClassifyRequest, context: Context
    ) -> inference_pb2.ClassifyResponse:
        """Gives each text, or pair of texts, the labels that fit it best."""
        return await self._answering.answer(_CLASSIFY, request, context)


class _Classify:
    name = "Classify"
    task = TextClassification.id

    def __init__(self) -> None:
        self._decode = TextClassification().decode

    def texts(self, request: inference_pb2.ClassifyRequest) -> Texts:
        return Texts(request.texts, request.text_pairs)

    def respond(
        self,
        request: inference_pb2.ClassifyRequest,
        served: ServedVersion,
        tokens: Sequence[Tokens],
        rows: Sequence[Row],
    ) -> inference_pb2.ClassifyResponse:
        labels, top_k = served.labels, request.top_k
        return inference_pb2.ClassifyResponse(
            classifications=[
                inference_pb2.Classification(
                    labels=self._decode(row["logits"], labels, top_k), tokens=input_tokens(read)
                )
                for read, row in zip(tokens, rows, strict=True)
            ]
        )


def input_tokens(tokens: Tokens) -> inference_pb2.InputTokens:
    """Returns how a text was read."""
    return inference_pb2.InputTokens(num_tokens=len(tokens), truncated=tokens.truncated)


_CLASSIFY = _Classify()
