"""Streams over several engines: shared, moved only before their first piece, and held like calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.contract.fake_generation import FakeGeneration
from tests.contract.gateway.calls import until
from tests.contract.gateway.pools import Pool, over, pool, sample
from tests.contract.gateway.stack import SERVING, Stack
from tests.contract.gateway.streaming import generate, listening, read, text_of
from tests.contract.generators import publish_generator
from tests.contract.versions import route


@pytest.fixture
async def engines() -> AsyncIterator[list[FakeGeneration]]:
    """Two engines that hold version 1 of "stories"."""
    async with AsyncExitStack() as exits:
        found = [await exits.enter_async_context(listening()) for _ in range(2)]
        for engine in found:
            engine.loaded = {"stories": {1}}
        yield found


@pytest.fixture
async def cpu(tmp_path: Path) -> AsyncIterator[Pool]:
    publish_generator(tmp_path / "repository", 1)
    async with pool(tmp_path) as made:
        yield made


@pytest.fixture
async def stack(tmp_path: Path, cpu: Pool, engines: list[FakeGeneration]) -> AsyncIterator[Stack]:
    cpu.name_only(*engines)
    async with over(tmp_path, cpu, routes=(route("stories", v1=1),), max_streams=1) as started:
        await started.until_health("stories", SERVING)
        served = started.serving._table.entries["stories", 1].served
        await until(lambda: served is not None and len(served.crew.places) == 2)
        for engine in engines:
            engine.asks.clear()
        yield started


async def test_streams_are_shared_and_each_server_writes_as_many_as_it_may(
    stack: Stack, engines: list[FakeGeneration]
) -> None:
    for engine in engines:
        engine.hold()
    calls = [asyncio.ensure_future(read(generate(stack, f"number {n}"))) for n in range(3)]
    await until(lambda: [len(engine.asks) for engine in engines] == [1, 1])
    assert sample(stack, "conch_streams_waiting", model="stories", version="1") == 1
    assert sample(stack, "conch_pool_streams", pool="cpu") == 3
    for engine in engines:
        engine.release()
    assert [text_of(await call) for call in calls] == [f"{n} number " for n in range(3)]


async def test_a_stream_that_is_refused_before_its_first_piece_begins_elsewhere(
    stack: Stack, engines: list[FakeGeneration]
) -> None:
    engines[0].fail(grpc.StatusCode.UNAVAILABLE, "going")
    texts = [text_of(await read(generate(stack, "one two"))) for _ in range(3)]
    assert texts == ["two one "] * 3
    assert not engines[0].stream_failures


async def test_a_stream_that_breaks_after_its_first_piece_does_not_begin_again(
    stack: Stack, engines: list[FakeGeneration]
) -> None:
    for engine in engines:
        engine.fail(grpc.StatusCode.UNAVAILABLE, "going", after=1)
    call = generate(stack, "one two three")
    assert (await call.read()).piece.text == "three "
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert sum(len(engine.asks) for engine in engines) == 1


async def test_a_stream_under_way_at_a_server_that_leaves_goes_on_to_its_end(
    stack: Stack, engines: list[FakeGeneration], cpu: Pool
) -> None:
    for engine in engines:
        engine.hold(after=1)
    call = generate(stack, "one two three")
    assert (await call.read()).piece.text == "three "
    (writing,) = (engine for engine in engines if engine.asks)
    cpu.name_only(*(engine for engine in engines if engine is not writing))
    writing.loaded.clear()
    await until(lambda: writing.address not in stack.serving._roster.pools["cpu"].servers)
    writing.release()
    assert text_of(await read(call)) == "two one "


async def test_a_stream_waits_for_the_first_server(
    tmp_path: Path, cpu: Pool, engines: list[FakeGeneration]
) -> None:
    async with over(tmp_path, cpu, routes=(route("stories", v1=1),)) as stack:
        table = stack.serving._table
        await until(lambda: table.settled() and table.route("stories") is not None)
        call = asyncio.ensure_future(read(generate(stack, "one two")))
        await until(lambda: sample(stack, "conch_pool_held_calls", pool="cpu") == 1)
        cpu.name_only(*engines)
        assert text_of(await call) == "two one "


async def test_a_stream_at_a_server_that_vanished_ends_long_before_its_deadline(
    stack: Stack, engines: list[FakeGeneration]
) -> None:
    for engine in engines:
        engine.hold(after=1)
    broken = generate(stack, "one two", seconds=100)
    assert (await broken.read()).piece.text == "two "
    (vanished,) = (engine for engine in engines if engine.asks)
    (alive,) = (engine for engine in engines if engine is not vanished)
    vanished.frozen = True
    alive.release()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(20):
            await read(broken)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert text_of(await read(generate(stack, "one two"))) == "two one "
