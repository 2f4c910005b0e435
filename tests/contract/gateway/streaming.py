"""What tests of streams share: calls, and what they are read to."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from conch.v1 import inference_pb2
from tests.contract.fake_generation import FakeGeneration
from tests.contract.gateway.stack import Stack


@asynccontextmanager
async def listening(**knobs: Any) -> AsyncIterator[FakeGeneration]:
    """Yields a fake engine that listens on a free port."""
    engine = FakeGeneration(**knobs)
    await engine.start()
    try:
        yield engine
    finally:
        engine.release()
        await engine.die()


def generate(
    stack: Stack, prompt: str = "once upon a time", *, seconds: float | None = 20, **more: Any
) -> Any:
    """Returns a call of Generate."""
    request = inference_pb2.GenerateRequest(**{"model": "stories", "prompt": prompt, **more})
    return stack.inference.Generate(request, timeout=seconds)


def chat(stack: Stack, *turns: tuple[str, str], seconds: float | None = 20, **more: Any) -> Any:
    """Returns a call of Chat; turns are (role, content)."""
    messages = [inference_pb2.ChatMessage(role=role, content=content) for role, content in turns]
    request = inference_pb2.ChatRequest(**{"model": "stories", "messages": messages, **more})
    return stack.inference.Chat(request, timeout=seconds)


async def read(call: Any) -> list[Any]:
    """Returns all responses of a call, from where it was read to. Raises what it ends with."""
    found = []
    while (response := await call.read()) is not grpc.aio.EOF:
        found.append(response)
    return found


def text_of(responses: Iterable[Any]) -> str:
    """Returns the whole text."""
    return "".join(response.piece.text for response in responses)
