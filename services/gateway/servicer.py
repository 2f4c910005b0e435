"""conch.v1.InferenceService: every rpc is one of two paths with its task's own facts.

Knows the rpcs' names; the paths are `services.gateway.answering` and, for streams,
`services.gateway.streaming`. What is particular to an rpc stands in its task's file.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from conch.v1 import inference_pb2, inference_pb2_grpc
from services.gateway.answering import Answering
from services.gateway.streaming import Streaming
from services.interceptors import Context

_RPCS = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].methods


def inference_servicer(
    answering: Answering, streaming: Streaming
) -> inference_pb2_grpc.InferenceServiceServicer:
    """Returns the servicer of typed answers; every rpc is documented in inference.proto."""
    methods = {
        rpc.name: _stream(streaming, rpc.name) if rpc.server_streaming else _unary(answering, rpc.name)
        for rpc in _RPCS
    }
    made: inference_pb2_grpc.InferenceServiceServicer = type(
        "InferenceServicer", (inference_pb2_grpc.InferenceServiceServicer,), methods
    )()
    return made


def _unary(answering: Answering, name: str) -> Callable[[Any, Any, Context], Awaitable[Any]]:
    async def answer(self: Any, request: Any, context: Context) -> Any:
        return await answering.answer(name, request, context)

    return answer


def _stream(streaming: Streaming, name: str) -> Callable[[Any, Any, Context], AsyncGenerator[Any, None]]:
    def answer(self: Any, request: Any, context: Context) -> AsyncGenerator[Any, None]:
        return streaming.answer(name, request, context)

    return answer
