"""What every connection to Conch has: round robin, retries, message sizes, a deadline on every call.

Knows gRPC channels and the errors of calls; knows nothing about requests or models.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio

from conch.errors import from_rpc_error

Metadata = Sequence[tuple[str, str]]
_MAX_MESSAGE_BYTES = 64 << 20

# Five attempts are the most that grpc makes. Their waits, 0.2 to 1.6 s with jitter, bridge the
# restart of one gateway behind a load balancer; the call's deadline bounds them all. A stream is
# repeated only while nothing of its answer has come: with the first piece grpc commits the call.
_RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.2s",
    "maxBackoff": "5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [{"name": [{"service": "conch.v1.InferenceService"}], "retryPolicy": _RETRY_POLICY}],
    # When most calls fail, retries stop by themselves: a client must not keep a struggling fleet down.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
}


def channel_options() -> list[tuple[str, Any]]:
    """Returns the channel options of a good client, for those who open a channel of their own."""
    return [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.enable_retries", 1),
        # Default 256 KiB: a larger request would never be repeated. The message is in memory anyway.
        ("grpc.per_rpc_retry_buffer_size", _MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ]


def open_channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    """Returns a channel to `target`: TLS with credentials, plaintext without."""
    options = channel_options()
    if credentials:
        return grpc.secure_channel(target, credentials, options=options)
    return grpc.insecure_channel(target, options=options)


def open_aio_channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """Returns the same for asyncio."""
    options = channel_options()
    if credentials:
        return grpc.aio.secure_channel(target, credentials, options=options)
    return grpc.aio.insecure_channel(target, options=options)


class CallSettings:
    """What every call of a client carries. Raises ValueError if `timeout_seconds` is not above 0."""

    def __init__(self, timeout_seconds: float, metadata: Metadata) -> None:
        if timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds is {timeout_seconds}, it must be above 0")
        self._timeout_seconds = timeout_seconds
        self._metadata = tuple(metadata)

    def options(self, timeout_seconds: float | None) -> dict[str, Any]:
        """Returns the keyword arguments of a stub's call; None leaves the client's own deadline."""
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        return {"timeout": timeout, "metadata": self._metadata}


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turns whatever grpc raises in the block into a `conch.errors.ConchError`."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
