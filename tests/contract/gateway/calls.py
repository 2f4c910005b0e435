"""What tests of calls share: requests, and refusals taken apart."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from conch.v1 import inference_pb2

CLASSIFY = "/conch.v1.InferenceService/Classify"


def request(*texts: str, **more: Any) -> inference_pb2.ClassifyRequest:
    return inference_pb2.ClassifyRequest(**{"model": "sentiment", "texts": texts, **more})


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, dict[str, Any]]:
    """Returns code, message and the details by type of the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)
    return caught.value.code(), caught.value.details() or "", _details(status)


def _details(status: Any) -> dict[str, Any]:
    kinds = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
        error_details_pb2.QuotaFailure,
    )
    found = {}
    for detail in status.details if status else ():
        for kind in kinds:
            if detail.Is(kind.DESCRIPTOR):
                message = kind()
                detail.Unpack(message)
                found[kind.DESCRIPTOR.name] = message
    return found


async def until(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    """Waits for what no event tells of."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # a metric or a count has no event
            await asyncio.sleep(0.005)
