"""Turns of streams: never more than allowed, none lost, whoever leaves and whenever."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

import pytest

from services.errors import BackendUnavailable, DeadlineExceeded, Overloaded
from services.gateway.streams import StreamLimits, Streams
from services.tasks.rpcs import Piece, Prompt


class Silent:
    """Writes nothing; knows how often it was ended."""

    def __init__(self) -> None:
        self.num_ends = 0

    async def write(self, prompt: Prompt, *, deadline: float | None) -> AsyncGenerator[Piece, None]:
        yield Piece("", is_last=True)

    def end(self) -> None:
        self.num_ends += 1


class Gauges:
    """Reads what Prometheus would."""

    inflight: Callable[[], int]
    waiting: Callable[[], int]

    def watch(self, *, inflight: Callable[[], int], waiting: Callable[[], int]) -> None:
        self.inflight, self.waiting = inflight, waiting


def streams(gauges: Gauges | None = None, *, at_once: int = 2, waiting: int = 100) -> Streams:
    return Streams(Silent(), limits=StreamLimits(at_once, waiting), subject="m@1", observe=gauges)


async def hold(streams: Streams, until: asyncio.Event, *, deadline: float | None = None) -> None:
    async with streams.turn(deadline=deadline):
        await until.wait()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_waits_gets_his_turn_when_another_ends() -> None:
    gauges, over, later = Gauges(), asyncio.Event(), asyncio.Event()
    ours = streams(gauges, at_once=1)
    first = asyncio.create_task(hold(ours, over))
    second = asyncio.create_task(hold(ours, later))
    await settled()
    assert (gauges.inflight(), gauges.waiting()) == (1, 1)
    over.set()
    await first
    await settled()
    assert (gauges.inflight(), gauges.waiting()) == (1, 0)
    later.set()
    await second
    await ours.until_idle()
    assert gauges.inflight() == 0


async def test_a_turn_that_came_to_one_who_leaves_goes_to_the_next() -> None:
    over, never = asyncio.Event(), asyncio.Event()
    ours = streams(at_once=1)
    first = asyncio.create_task(hold(ours, over))
    leaver = asyncio.create_task(hold(ours, never))
    next_one = asyncio.create_task(hold(ours, over))
    await settled()
    over.set()
    await first  # the turn is the leaver's now, who has not run since
    leaver.cancel()
    with suppress(asyncio.CancelledError):
        await leaver
    async with asyncio.timeout(1):
        await next_one
        await ours.until_idle()


async def test_a_deadline_that_passes_while_one_waits_is_told() -> None:
    over = asyncio.Event()
    ours = streams(at_once=1)
    first = asyncio.create_task(hold(ours, over))
    await settled()
    with pytest.raises(DeadlineExceeded, match="for its turn"):
        await hold(ours, over, deadline=asyncio.get_running_loop().time() + 0.01)
    over.set()
    await first
    await hold(ours, over)


async def test_too_many_who_wait_are_refused_with_the_time_to_come_back() -> None:
    over = asyncio.Event()
    ours = streams(at_once=1, waiting=1)
    held = [asyncio.create_task(hold(ours, over)) for _ in range(2)]
    await settled()
    with pytest.raises(Overloaded, match="1 streams wait for m@1, 1 may") as caught:
        await hold(ours, over)
    assert caught.value.retry_seconds > 0
    over.set()
    await asyncio.gather(*held)


async def test_closing_refuses_and_ends_what_waits() -> None:
    over = asyncio.Event()
    writer = Silent()
    ours = Streams(writer, limits=StreamLimits(1, 5), subject="m@1")
    first, second = (asyncio.create_task(hold(ours, over)) for _ in range(2))
    await settled()
    ours.close()
    for refused in (second, hold(ours, over)):
        with pytest.raises(BackendUnavailable, match="m@1 is being unloaded"):
            await refused
    assert writer.num_ends == 1
    over.set()
    await first
    await ours.until_idle()


@pytest.mark.parametrize("seed", range(5))
async def test_no_turn_is_lost_or_given_twice_whoever_leaves_and_whenever(seed: int) -> None:
    gauges, chance = Gauges(), random.Random(seed)
    ours = streams(gauges, at_once=3, waiting=1000)
    running = most = 0

    async def stream() -> None:
        nonlocal running, most
        deadline = asyncio.get_running_loop().time() + chance.choice((0.001, 1.0))
        async with ours.turn(deadline=deadline):
            running += 1
            most = max(most, running)
            try:
                await asyncio.sleep(chance.choice((0, 0, 0.0005)))
            finally:
                running -= 1

    tasks = []
    for _ in range(300):
        tasks.append(asyncio.create_task(stream()))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.3:
            await asyncio.sleep(0)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError, DeadlineExceeded}
    assert most == 3
    assert (gauges.inflight(), gauges.waiting()) == (0, 0)
    async with asyncio.timeout(1):
        await ours.until_idle()
