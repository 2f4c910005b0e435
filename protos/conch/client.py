"""The client that other teams install: typed answers, a deadline on every call, typed errors.

    from conch.client import Conch

    with Conch("conch-gateway:50051") as conch:
        answer = conch.classify(["great film"], model="sentiment")
        print(answer.classifications[0].labels[0].label)

Answers are the contract's own messages (`conch.v1.inference_pb2`); errors are `conch.errors`. Calls
are spread over all addresses behind the target (round robin) and repeated by the channel, with
growing waits, while the service is UNAVAILABLE. Knows nothing about models or tokens.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from conch.errors import ConchError, from_rpc_error
from conch.v1 import inference_pb2, inference_pb2_grpc

__all__ = ["AsyncConch", "Conch", "ConchError", "channel_options"]

Metadata = Sequence[tuple[str, str]]
_MAX_MESSAGE_BYTES = 64 << 20

# Five attempts are the most that grpc makes. Their waits, 0.2 to 1.6 s with jitter, bridge the
# restart of one gateway behind a load balancer; the call's deadline bounds them all.
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
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ]


class Conch:
    """A gateway at `target` (host:port, or any gRPC name such as dns:///gateway:50051); thread-safe.

    `timeout_seconds` is the deadline of every call that brings none of its own. `credentials` turns TLS
    on (`grpc.ssl_channel_credentials()`); without it the connection is plaintext. `metadata` goes
    with every call.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_seconds: float = 30.0,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
    ) -> None:
        options = channel_options()
        self._channel = (
            grpc.secure_channel(target, credentials, options=options)
            if credentials
            else grpc.insecure_channel(target, options=options)
        )
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)
        self._call = _CallSettings(timeout_seconds, metadata)

    def classify(
        self,
        texts: Sequence[str],
        *,
        model: str,
        version: int = 0,
        top_k: int = 0,
        text_pairs: Sequence[str] = (),
        timeout_seconds: float | None = None,
    ) -> inference_pb2.ClassifyResponse:
        """Returns for each text (or pair of texts) its labels with scores, best first.

        `version` 0 lets the route decide, `top_k` 0 asks for all labels, `timeout_seconds` replaces the
        client's own. Raises a subclass of `conch.errors.ConchError`.
        """
        request = _classify_request(texts, model, version, top_k, text_pairs)
        with _typed_errors():
            return self._stub.Classify(request, **self._call.options(timeout_seconds))

    def close(self) -> None:
        """Closes the connections; calls under way end with Cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncConch:
    """The same for asyncio: see Conch. Cancelling the task cancels the call, also at the gateway."""

    def __init__(
        self,
        target: str,
        *,
        timeout_seconds: float = 30.0,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
    ) -> None:
        options = channel_options()
        self._channel = (
            grpc.aio.secure_channel(target, credentials, options=options)
            if credentials
            else grpc.aio.insecure_channel(target, options=options)
        )
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)
        self._call = _CallSettings(timeout_seconds, metadata)

    async def classify(
        self,
        texts: Sequence[str],
        *,
        model: str,
        version: int = 0,
        top_k: int = 0,
        text_pairs: Sequence[str] = (),
        timeout_seconds: float | None = None,
    ) -> inference_pb2.ClassifyResponse:
        """As Conch.classify."""
        request = _classify_request(texts, model, version, top_k, text_pairs)
        with _typed_errors():
            return await self._stub.Classify(request, **self._call.options(timeout_seconds))

    async def close(self) -> None:
        """Closes the connections; calls under way end with Cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class _CallSettings:
    """What every call of a client carries."""

    def __init__(self, timeout_seconds: float, metadata: Metadata) -> None:
        if timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds is {timeout_seconds}, it must be above 0")
        self._timeout_seconds = timeout_seconds
        self._metadata = tuple(metadata)

    def options(self, timeout_seconds: float | None) -> dict[str, Any]:
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        return {"timeout": timeout, "metadata": self._metadata}


def _classify_request(
    texts: Sequence[str], model: str, version: int, top_k: int, text_pairs: Sequence[str]
) -> inference_pb2.ClassifyRequest:
    if isinstance(texts, str):
        raise TypeError('texts is a list of texts: ["..."], not one text')
    return inference_pb2.ClassifyRequest(
        model=model, version=version, texts=texts, top_k=top_k, text_pairs=text_pairs
    )


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
