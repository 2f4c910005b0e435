"""Builds, starts and drains a grpc.aio server: health, reflection, guarded handlers, port errors.

Knows nothing about what the services do.
"""

import asyncio
import errno
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.interceptors import GuardedServer, Observe

log = structlog.get_logger(__name__)


@dataclass
class Server:
    """A grpc.aio server with health and reflection; add servicers to `grpc`, then `start()`."""

    grpc: GuardedServer
    health: health.aio.HealthServicer
    port: int = 0

    async def start(self, address: str, *, is_ready: bool = True) -> int:
        """Binds `address` unless it is bound already, starts serving and returns the port. Raises OSError.

        `is_ready`: health says SERVING at once; else the caller says so later.
        """
        if not self.port:
            self.bind(address)
        status = health_pb2.HealthCheckResponse
        await self.health.set("", status.SERVING if is_ready else status.NOT_SERVING)
        await self.grpc.start()
        log.info("server.started", address=address, port=self.port)
        return self.port

    def bind(self, address: str) -> int:
        """Binds `address` (host:port, port 0 = any free one) without serving yet; returns the port.

        Raises OSError(EADDRINUSE) with a sentence if the port is taken.
        """
        try:
            self.port = self.grpc.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(
                errno.EADDRINUSE, f"cannot listen on {address}: the port is taken or not ours"
            ) from error
        return self.port

    async def drain(self, grace_seconds: float) -> None:
        """Turns health to NOT_SERVING, lets running rpcs end for `grace_seconds`, then stops."""
        await self.health.enter_graceful_shutdown()
        await self.grpc.stop(grace_seconds)
        log.info("server.stopped", port=self.port)


def build(
    services: Sequence[str], *, max_message_bytes: int = 64 << 20, observe: Observe | None = None
) -> Server:
    """Returns a server that reflects `services` (full names) beside health and reflection itself.

    `observe` is told of every ended rpc.
    """
    options = [
        ("grpc.so_reuseport", 0),
        # Callers may ask this often whether we live; by default grpc throws out who asks within 5 minutes.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
    ]
    server = grpc.aio.server(options=options)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = [*services, health.SERVICE_NAME, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)
    return Server(GuardedServer(server, observe), checks)


async def stop_signal() -> None:
    """Returns once SIGTERM or SIGINT arrived; a second one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await stop.wait()
