"""Waiting for the health of what runs, on the Watch stream: no polling."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING


def wait_serving(target: str, service: str, *, seconds: float = 60) -> None:
    """Returns once `service` is SERVING in grpc.health.v1 at `target`."""
    _wait(target, service, serving=True, seconds=seconds)


def wait_not_serving(target: str, service: str, *, seconds: float = 60) -> None:
    """Returns once the server has noticed that `service` does not answer."""
    _wait(target, service, serving=False, seconds=seconds)


def _wait(target: str, service: str, *, serving: bool, seconds: float) -> None:
    with grpc.insecure_channel(target) as channel:
        grpc.channel_ready_future(channel).result(seconds)
        request = health_pb2.HealthCheckRequest(service=service)
        for change in health_pb2_grpc.HealthStub(channel).Watch(request, timeout=seconds):
            if (change.status == SERVING) is serving:
                return
