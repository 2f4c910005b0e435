"""Shadows: a version that gets copies, whose answers nobody sees and whose troubles nobody feels."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from conch.v1 import models_pb2
from tests.contract.fake_triton import FakeTriton, sum_logits
from tests.contract.gateway.calls import until
from tests.contract.gateway.stack import SERVING, Stack, gateway
from tests.contract.versions import publish, route


def shadowed(**weights: int) -> models_pb2.Route:
    made = route(**weights)
    made.shadow = 2
    return made


@pytest.fixture
async def stack(tmp_path: Path, triton: FakeTriton) -> AsyncIterator[Stack]:
    """Version 1 answers, version 2 is its shadow."""
    for version in (1, 2, 3):
        publish(tmp_path / "repository", version)
    async with gateway(tmp_path, triton.address) as started:
        await started.set_route(shadowed(v1=1, v3=0))
        triton.calls.clear()
        yield started


def copies(stack: Stack, outcome: str) -> float:
    labels = {"model": "sentiment", "version": "2", "outcome": outcome}
    return stack.metrics.registry.get_sample_value("conch_shadow_calls_total", labels) or 0


def asked(triton: FakeTriton, version: int) -> list[str]:
    return [call.version for call in triton.calls if call.version == str(version)]


async def test_a_shadow_gets_a_copy_of_each_call_and_the_caller_the_other_answer(
    stack: Stack, triton: FakeTriton
) -> None:
    assert await stack.check("sentiment@2") == SERVING
    for n in range(1, 4):
        assert (await stack.classify()).version == 1
        await until(lambda n=n: copies(stack, "answered") == n)  # type: ignore[misc]
    assert len(asked(triton, 2)) == len(asked(triton, 1)) == 3


async def test_a_shadow_is_nobodys_to_ask_for(stack: Stack) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.classify(version=2)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_calls_of_a_version_without_a_share_are_not_copied(stack: Stack, triton: FakeTriton) -> None:
    assert (await stack.classify(version=3)).version == 3
    await stack.classify()
    await until(lambda: copies(stack, "answered") == 1)
    assert len(asked(triton, 2)) == 1


async def test_what_fails_at_the_shadow_fails_no_call(stack: Stack, triton: FakeTriton) -> None:
    def of_version(ids: object, mask: object) -> object:
        if triton.calls[-1].version == "2":
            raise ValueError("no")
        return sum_logits(ids, mask)

    triton.logits = of_version
    await stack.classify()
    await until(lambda: copies(stack, "failed") == 1)
    await stack.classify()


async def test_copies_beyond_a_few_are_dropped_and_calls_are_not_slower_for_it(
    stack: Stack, triton: FakeTriton
) -> None:
    gate = asyncio.Event()
    answer = triton._check_loaded

    async def slow_shadow(model: str, version: str, context: object) -> None:
        if version == "2":
            await gate.wait()
        await answer(model, version, context)

    triton._check_loaded = slow_shadow  # type: ignore[method-assign]
    for _ in range(8):
        await stack.classify()
    await until(lambda: copies(stack, "dropped") >= 3)
    assert len(asked(triton, 1)) == 8
    gate.set()
    await until(lambda: copies(stack, "answered") + copies(stack, "dropped") == 8)
