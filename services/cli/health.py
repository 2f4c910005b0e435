"""Asks a process whether it is usable: grpc.health.v1 for our services, KServe v2 for Triton."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2

_TRITON_READY = "/inference.GRPCInferenceService/ServerReady"
_READY = b"\x08\x01"  # ServerReadyResponse{ready: true}: one field, not worth tritonclient's import


def is_serving(address: str, service: str = "", *, timeout_seconds: float = 0.5) -> bool:
    """Returns True if the server at host:port says SERVING for `service` ("" = as a whole)."""
    request = health_pb2.HealthCheckRequest(service=service)
    answer = _ask(address, "/grpc.health.v1.Health/Check", request.SerializeToString(), timeout_seconds)
    if answer is None:
        return False
    response = health_pb2.HealthCheckResponse.FromString(answer)
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


def is_triton_ready(address: str, *, timeout_seconds: float = 0.5) -> bool:
    """Returns True if the Triton at host:port says that it is ready."""
    return _ask(address, _TRITON_READY, b"", timeout_seconds) == _READY


def _ask(address: str, method: str, request: bytes, timeout_seconds: float) -> bytes | None:
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call: Any = channel.unary_unary(method)
        try:
            answer: bytes = call(request, timeout=timeout_seconds)
        except grpc.RpcError:
            return None
        return answer
