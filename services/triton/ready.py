"""Waits until a Triton answers. Knows the KServe v2 health call; starts and stops nothing."""

import time
from collections.abc import Callable

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.errors import BackendUnavailable

_ATTEMPT_SECONDS = 0.5
_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]


def wait(address: str, *, timeout_seconds: float = 60.0, alive: Callable[[], bool] = lambda: True) -> None:
    """Returns once the Triton at `address` (host:port of gRPC) says that it is ready.

    Raises BackendUnavailable after `timeout_seconds`, or as soon as `alive()` says that its process ended.
    """
    deadline = time.monotonic() + timeout_seconds
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while not _is_ready(stub):
            if not alive():
                raise BackendUnavailable(
                    f"the Triton at {address} ended while starting", reason="TRITON_ENDED"
                )
            if time.monotonic() > deadline:
                raise BackendUnavailable(
                    f"no Triton answered at {address} within {timeout_seconds:g} s",
                    reason="TRITON_UNAVAILABLE",
                )


def _is_ready(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> bool:
    try:
        answer = stub.ServerReady(
            service_pb2.ServerReadyRequest(), timeout=_ATTEMPT_SECONDS, wait_for_ready=True
        )
    except grpc.RpcError:
        return False
    return bool(answer.ready)
