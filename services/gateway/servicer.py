"""conch.v1.InferenceService: every rpc is the same path with its task's own facts.

Knows the rpcs' names; the path itself is `services.gateway.answering`, what is particular to an rpc
stands in its task's file.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from conch.v1 import inference_pb2, inference_pb2_grpc
from services.gateway.answering import Answering
from services.interceptors import Context

_RPCS = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].methods


def inference_servicer(answering: Answering) -> inference_pb2_grpc.InferenceServiceServicer:
    """Returns the servicer of typed answers; every rpc is documented in inference.proto."""
    methods = {rpc.name: _unary(answering, rpc.name) for rpc in _RPCS if not rpc.server_streaming}
    made: inference_pb2_grpc.InferenceServiceServicer = type(
        "InferenceServicer", (inference_pb2_grpc.InferenceServiceServicer,), methods
    )()
    return made


def _unary(answering: Answering, name: str) -> Callable[[Any, Any, Context], Awaitable[Any]]:
    async def answer(self: Any, request: Any, context: Context) -> Any:
        return await answering.answer(name, request, context)

    return answer
