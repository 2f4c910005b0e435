"""Streams whose caller leaves or sleeps, whose time is up, whose engine dies: over real sockets."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import AsyncGeneratorType
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog

from conch.v1 import models_pb2
from tests.contract.fake_generation import FakeGeneration, default
from tests.contract.gateway.calls import refusal, until
from tests.contract.gateway.stack import NOT_SERVING, SERVING, Stack, gateway
from tests.contract.gateway.streaming import generate, listening, read, text_of
from tests.contract.generators import publish_generator
from tests.contract.versions import route

VERSION = {"model": "stories", "version": "1"}


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FakeGeneration]:
    async with listening(repository=tmp_path / "staged") as fake:
        yield fake


@pytest.fixture
async def stack(tmp_path: Path, engine: FakeGeneration) -> AsyncIterator[Stack]:
    """A gateway that lets two streams run and two wait, for each version."""
    publish_generator(tmp_path / "repository", 1)
    more: dict[str, Any] = {"max_streams": 2, "queue_streams": 2, "stream_drain_seconds": 0.3}
    async with gateway(tmp_path, engine.address, **more) as started:
        await started.set_route(route("stories", v1=1))
        engine.asks.clear()
        yield started


def gauge(stack: Stack, name: str) -> float | None:
    return stack.metrics.registry.get_sample_value(name, VERSION)


async def idle(stack: Stack, engine: FakeGeneration) -> None:
    """Waits until nothing of any stream is left."""
    await until(lambda: not engine.running and gauge(stack, "conch_streams_inflight") == 0)


async def first_of(call: Any) -> Any:
    """Returns the first response."""
    async with asyncio.timeout(10):
        return await call.read()


async def test_a_caller_who_leaves_cancels_at_triton(stack: Stack, engine: FakeGeneration) -> None:
    engine.hold(after=1)
    call = generate(stack)
    await first_of(call)
    call.cancel()
    await engine.until(lambda: engine.num_cancelled == 1)
    assert engine.asks[0].is_cancelled
    await idle(stack, engine)
    labels = {"rpc": "Generate", **VERSION, "code": "CANCELLED"}
    assert stack.metrics.registry.get_sample_value("conch_version_failures_total", labels) == 1


async def test_a_caller_who_leaves_before_the_first_piece_cancels_at_triton_too(
    stack: Stack, engine: FakeGeneration
) -> None:
    engine.hold()
    call = generate(stack)
    await engine.until(lambda: len(engine.asks) == 1)
    call.cancel()
    await engine.until(lambda: engine.num_cancelled == 1)


async def test_a_callers_deadline_reaches_triton_less_the_reserve(
    stack: Stack, engine: FakeGeneration
) -> None:
    await read(generate(stack, seconds=8))
    (ask,) = engine.asks
    assert ask.seconds_left == pytest.approx(8, rel=0.02)
    assert ask.timeout_microseconds == pytest.approx(8e6, rel=0.02)


async def test_a_stream_without_a_deadline_gets_the_default(stack: Stack, engine: FakeGeneration) -> None:
    await read(generate(stack, seconds=None))
    assert engine.asks[0].seconds_left == pytest.approx(300, rel=0.02)


async def test_a_deadline_that_passes_in_the_middle_ends_the_stream_with_its_status(
    tmp_path: Path, stack: Stack, engine: FakeGeneration
) -> None:
    """The reserve lets the gateway's own status arrive, with details that a dropped call has not."""
    async with gateway(tmp_path, engine.address, deadline_reserve_seconds=0.5) as early:
        await until(lambda: early.serving.state(("stories", 1))[0] == models_pb2.Version.STATE_SERVING)
        engine.hold(after=1)
        call = generate(early, seconds=1.0)
        await first_of(call)
        code, message, details = await refusal(call.read())
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "stories@1" in message
    assert details["ErrorInfo"].reason == "DEADLINE_EXCEEDED_IN_TRITON"
    await engine.until(lambda: not engine.running)
    assert engine.num_cancelled == 1


async def test_a_triton_that_dies_in_the_middle_is_unavailable_and_what_came_stays(
    stack: Stack, engine: FakeGeneration
) -> None:
    engine.hold(after=2)
    call = generate(stack, "one two three four")
    got = [await first_of(call), await first_of(call)]
    await engine.die()
    code, _, details = await refusal(call.read())
    assert code is grpc.StatusCode.UNAVAILABLE
    assert details["RetryInfo"].retry_delay.ToMilliseconds() > 0
    assert text_of(got) == "four three "
    await until(lambda: gauge(stack, "conch_streams_inflight") == 0)


async def test_a_triton_that_comes_back_is_streamed_from_again(stack: Stack, engine: FakeGeneration) -> None:
    await engine.die()
    engine.loaded.clear()
    code, _, _ = await refusal(read(generate(stack)))
    assert code is grpc.StatusCode.UNAVAILABLE
    await stack.until_health("stories@1", NOT_SERVING)
    await engine.start()
    await stack.until_health("stories@1", SERVING)
    assert text_of(await read(generate(stack, "one two"))) == "two one "


@pytest.mark.parametrize(
    ("code", "words", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, "the model is going", "TRITON_UNAVAILABLE"),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'stories' is not found", "TRITON_LEAVING"),
        (grpc.StatusCode.INTERNAL, "Stub process 'stories_0' is not healthy", "TRITON_UNAVAILABLE"),
    ],
)
async def test_an_engine_that_goes_in_the_middle_is_unavailable(
    stack: Stack, engine: FakeGeneration, code: grpc.StatusCode, words: str, reason: str
) -> None:
    engine.fail(code, words, after=2)
    call = generate(stack)
    await first_of(call)
    await first_of(call)
    found, _, details = await refusal(call.read())
    assert (found, details["ErrorInfo"].reason) == (grpc.StatusCode.UNAVAILABLE, reason)
    assert "RetryInfo" in details


@pytest.mark.parametrize("reason", ["abort", "error"])
async def test_a_text_that_its_engine_gives_up_is_unavailable_and_not_complete(
    stack: Stack, engine: FakeGeneration, reason: str
) -> None:
    engine.reason = reason
    code, message, details = await refusal(read(generate(stack)))
    assert (code, details["ErrorInfo"].reason) == (grpc.StatusCode.UNAVAILABLE, "TEXT_GIVEN_UP")
    assert reason in message


async def test_a_stream_that_just_ends_is_not_taken_for_a_whole_text(
    stack: Stack, engine: FakeGeneration
) -> None:
    engine.fail(grpc.StatusCode.OK, "", after=2)
    code, _, details = await refusal(read(generate(stack)))
    assert (code, details["ErrorInfo"].reason) == (grpc.StatusCode.UNAVAILABLE, "TEXT_GIVEN_UP")


async def test_what_a_bug_breaks_in_the_middle_is_internal_and_logged(
    stack: Stack, engine: FakeGeneration
) -> None:
    engine.fail(grpc.StatusCode.INTERNAL, "Error generating stream: secret", after=2)
    with structlog.testing.capture_logs() as logged:
        code, message, _ = await refusal(read(generate(stack)))
    assert (code, message) == (grpc.StatusCode.INTERNAL, "internal error")
    assert "secret" in repr(next(line["exc_info"] for line in logged if line["event"] == "rpc.crashed"))


async def test_streams_beyond_those_at_work_wait_and_beyond_those_are_refused(
    stack: Stack, engine: FakeGeneration
) -> None:
    engine.hold()
    calls = [asyncio.ensure_future(read(generate(stack, f"number {n}"))) for n in range(4)]
    await until(lambda: gauge(stack, "conch_streams_waiting") == len(engine.asks) == 2)
    assert gauge(stack, "conch_streams_inflight") == 2
    code, message, details = await refusal(read(generate(stack)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert message == "2 streams wait for stories@1, 2 may"
    assert details["RetryInfo"].retry_delay.ToMilliseconds() > 0
    assert details["QuotaFailure"].violations[0].subject == "stories@1"
    assert details["ErrorInfo"].reason == "QUEUE_FULL"
    engine.release()
    texts = [text_of(responses) for responses in await asyncio.gather(*calls)]
    assert texts == [f"{n} number " for n in range(4)]
    await idle(stack, engine)


async def test_who_waits_is_served_in_the_order_of_arrival(stack: Stack, engine: FakeGeneration) -> None:
    engine.hold()
    calls = []
    for n in range(4):
        calls.append(asyncio.ensure_future(read(generate(stack, f"number {n}"))))
        await until(lambda n=n: len(engine.asks) + (gauge(stack, "conch_streams_waiting") or 0) == n + 1)
    engine.release()
    await asyncio.gather(*calls)
    assert [ask.prompt for ask in engine.asks] == [f"number {n}" for n in range(4)]


async def test_who_leaves_while_he_waits_is_never_written_for(stack: Stack, engine: FakeGeneration) -> None:
    engine.hold()
    held = [asyncio.ensure_future(read(generate(stack))) for _ in range(2)]
    await engine.until(lambda: len(engine.asks) == 2)
    gone = generate(stack, "never written")
    await until(lambda: gauge(stack, "conch_streams_waiting") == 1)
    gone.cancel()
    await until(lambda: gauge(stack, "conch_streams_waiting") == 0)
    engine.release()
    await asyncio.gather(*held)
    assert "never written" not in {ask.prompt for ask in engine.asks}
    assert text_of(await read(generate(stack, "one two"))) == "two one "


async def test_a_deadline_that_passes_in_the_queue_says_how_long_it_waited(
    tmp_path: Path, stack: Stack, engine: FakeGeneration
) -> None:
    async with gateway(tmp_path, engine.address, max_streams=1, deadline_reserve_seconds=0.5) as early:
        await until(lambda: early.serving.state(("stories", 1))[0] == models_pb2.Version.STATE_SERVING)
        engine.hold()
        engine.asks.clear()
        held = generate(early)
        await engine.until(lambda: len(engine.asks) == 1)
        code, message, details = await refusal(read(generate(early, seconds=0.8)))
        held.cancel()
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "s for its turn" in message
    assert details["ErrorInfo"].reason == "DEADLINE_TOO_NEAR"
    assert len(engine.asks) == 1


async def test_a_caller_who_does_not_read_holds_the_engine_back(
    tmp_path: Path, engine: FakeGeneration
) -> None:
    """Nothing is read ahead of him but what fits the transports' windows."""
    piece = "x" * 10_000
    engine.script = lambda ask: [piece] * 5_000 if ask.prompt == "flood" else default(ask)
    publish_generator(tmp_path / "repository", 1, max_length=8192)
    async with gateway(tmp_path, engine.address) as stack:
        await stack.set_route(route("stories", v1=1))
        call = generate(stack, "flood", sampling={"max_tokens": 4096})
        await first_of(call)
        ask, seen = engine.asks[-1], -1
        while seen != ask.num_sent:
            seen = ask.num_sent
            await asyncio.sleep(0.2)
        assert ask.num_sent * len(piece) < 20 << 20
        for _ in range(10):
            await first_of(call)
        call.cancel()
        await engine.until(lambda: ask.is_cancelled)


async def test_a_thousand_streams_that_are_left_leave_nothing_behind(
    tmp_path: Path, engine: FakeGeneration
) -> None:
    publish_generator(tmp_path / "repository", 1)
    async with gateway(tmp_path, engine.address, queue_streams=1000) as stack:
        await stack.set_route(route("stories", v1=1))
        await leave_streams(stack, engine, 50)
        before = things()
        with structlog.testing.capture_logs() as logged:
            await leave_streams(stack, engine, 1000)
        assert not [line for line in logged if line["event"] == "rpc.crashed"]
        after = things()
        assert {kind: after[kind] - before[kind] for kind in after if after[kind] > before[kind] + 10} == {}
        assert gauge(stack, "conch_streams_waiting") == 0
        assert text_of(await read(generate(stack, "one two"))) == "two one "


async def leave_streams(stack: Stack, engine: FakeGeneration, count: int) -> None:
    """Begins streams and leaves them: before they begin, while they wait, after a piece, near the end."""
    engine.hold(after=2)

    async def leave(n: int) -> None:
        call = generate(stack, "one two three")
        if n % 4 == 1:
            await asyncio.sleep(0.001)
        elif n % 4 > 1:
            for _ in range(n % 4 - 1):
                await call.read()
        call.cancel()

    for begin in range(0, count, 50):
        await asyncio.gather(*(leave(n) for n in range(begin, min(begin + 50, count))))
    engine.release()
    await idle(stack, engine)
    await until(lambda: gauge(stack, "conch_streams_waiting") == 0)


def things() -> Counter[str]:
    """Returns how many objects of the kinds that a stream is made of are alive."""
    gc.collect()
    kinds = (asyncio.Task, AsyncGeneratorType, grpc.aio.StreamStreamCall, asyncio.Future)
    return Counter(kind.__name__ for thing in gc.get_objects() for kind in kinds if isinstance(thing, kind))


async def test_a_version_that_leaves_the_route_waits_for_its_streams(
    tmp_path: Path, engine: FakeGeneration
) -> None:
    for version in (1, 2):
        publish_generator(tmp_path / "repository", version)
    async with gateway(tmp_path, engine.address, stream_drain_seconds=20) as stack:
        await stack.set_route(route("stories", v1=1))
        engine.hold(after=1)
        call = generate(stack, "one two three")
        first = await first_of(call)
        engine.hold_after = 1000
        await stack.set_route(route("stories", v2=1))
        assert (await read(generate(stack)))[0].served_by.version == 2
        engine.release()
        rest = await read(call)
        assert text_of([first, *rest]) == "three two one "
        assert rest[-1].served_by.version == 1
        await until(lambda: engine.loaded == {"stories": {2}})


async def test_streams_that_outlast_the_drain_are_ended_and_say_so(
    tmp_path: Path, stack: Stack, engine: FakeGeneration
) -> None:
    publish_generator(tmp_path / "repository", 2)
    engine.hold(after=1)
    call = generate(stack, "one two three")
    await first_of(call)
    engine.hold_after = 1000
    await stack.set_route(route("stories", v2=1))
    code, _, details = await refusal(read(call))
    assert (code, details["ErrorInfo"].reason) == (grpc.StatusCode.UNAVAILABLE, "VERSION_UNLOADING")
    assert "RetryInfo" in details
    await until(lambda: engine.loaded == {"stories": {2}})
