"""Pools without a server: calls wait within their deadlines, not for ever, and not in any number."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from conch.v1 import inference_pb2
from tests.contract.gateway.calls import refusal, until
from tests.contract.gateway.pools import Pool, over, sample, write
from tests.contract.gateway.stack import SERVING, Stack
from tests.contract.versions import publish, route


@pytest.fixture(autouse=True)
def repository(tmp_path: Path) -> Path:
    """Versions 1 and 2 of "sentiment"."""
    folder = tmp_path / "repository"
    publish(folder, 1)
    publish(folder, 2)
    return folder


@pytest.fixture
async def stack(tmp_path: Path, cpu: Pool) -> AsyncIterator[Stack]:
    """A gateway over a pool from zero, which knows that there is nobody."""
    async with over(tmp_path, cpu, routes=(route(v1=1),), pool_hold_seconds=10, queue_tokens=64) as started:
        await until_idle(started)
        yield started


async def until_idle(stack: Stack) -> None:
    await until(lambda: stack.serving._table.settled() and stack.serving.route("sentiment") is not None)


def held(stack: Stack) -> float | None:
    return sample(stack, "conch_pool_held_calls", pool="cpu")


async def test_calls_wait_for_the_first_server_and_are_answered(stack: Stack, cpu: Pool) -> None:
    calls = [asyncio.ensure_future(stack.classify()) for _ in range(3)]
    await until(lambda: held(stack) == 3)
    assert (sample(stack, "conch_pool_tokens", pool="cpu") or 0) > 0
    await cpu.add(1)
    assert [(await call).version for call in calls] == [1, 1, 1]
    assert held(stack) == 0
    share = sample(stack, "conch_pool_queue_share_sum", pool="cpu")
    assert share is not None
    assert share > 0


async def test_who_waits_goes_where_the_route_says_when_a_server_is_there(
    tmp_path: Path, stack: Stack, cpu: Pool
) -> None:
    call = asyncio.ensure_future(stack.classify())
    await until(lambda: held(stack) == 1)
    write(tmp_path, route(v2=1))
    await cpu.add(2)
    assert (await call).version == 2


async def test_a_deadline_ends_the_wait(stack: Stack) -> None:
    request = inference_pb2.ClassifyRequest(model="sentiment", texts=["a film"])
    code, _, _ = await refusal(stack.inference.Classify(request, timeout=0.4))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: held(stack) == 0)
    total = sample(stack, "conch_pool_queue_share_bucket", pool="cpu", le="+Inf")
    below = sample(stack, "conch_pool_queue_share_bucket", pool="cpu", le="1.0")
    assert (total, below) == (1, 0)


async def test_a_call_waits_no_longer_than_the_settings_say(tmp_path: Path, cpu: Pool) -> None:
    async with over(tmp_path, cpu, routes=(route(v1=1),), pool_hold_seconds=0.2) as stack:
        await until_idle(stack)
        code, words, details = await refusal(stack.classify())
        assert code is grpc.StatusCode.UNAVAILABLE
        assert (
            words == "no server of pool cpu has sentiment@1 yet, and calls wait for it no longer than 0.2 s"
        )
        assert "RetryInfo" in details


async def test_no_more_calls_wait_than_a_queue_may_hold(stack: Stack) -> None:
    calls = []
    while (held(stack) or 0) == len(calls) < 30:
        calls.append(asyncio.ensure_future(stack.classify()))
        await until(lambda: held(stack) == len(calls) or calls[-1].done())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await calls[-1]
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(calls) > 2
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_who_gives_up_waits_no_more(stack: Stack) -> None:
    call = asyncio.ensure_future(stack.classify())
    await until(lambda: held(stack) == 1)
    call.cancel()
    await until(lambda: held(stack) == 0)


async def test_a_pool_that_holds_other_versions_refuses_at_once(tmp_path: Path, cpu: Pool) -> None:
    await cpu.add(2)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await until(lambda: sample(stack, "conch_pool_servers", pool="cpu", state="ready") == 1)
        await until(lambda: ("cpu", ("sentiment", 1)) in stack.serving._roster.members)
        code, words, _ = await refusal(stack.classify())
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "sentiment@1 is being loaded" in words


async def test_the_only_server_leaves_and_its_calls_wait_for_the_next(tmp_path: Path, cpu: Pool) -> None:
    first = await cpu.add(1)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await stack.until_health("sentiment", SERVING)
        first.hold()
        calls = [asyncio.ensure_future(stack.classify()) for _ in range(3)]
        await until(lambda: len(first.calls) > 1)
        first.loaded.clear()
        cpu.name_only()
        first.release()
        await until(lambda: held(stack) == 3)
        await cpu.add(1)
        assert [(await call).version for call in calls] == [1, 1, 1]
