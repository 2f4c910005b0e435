"""The batcher against an `infer` that the test answers by hand; no transport, no clock."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from services.errors import BackendUnavailable, DeadlineExceeded, Overloaded
from services.gateway.batching import Batched, Batcher, BatchLimits, Inferred
from services.gateway.shapes import Shapes
from services.tasks.encoding import Tokens
from services.tasks.tensors import FloatArray, IntArray

SHAPES = Shapes((8, 16, 32, 64), (), token_budget=256, max_rows=8, call_tokens=0)


def text(num_tokens: int, first: int = 1) -> Tokens:
    return Tokens([first] * num_tokens, [0] * num_tokens)


def answer(inputs: Mapping[str, IntArray]) -> dict[str, FloatArray]:
    """Logits that depend on a row's real tokens alone."""
    return {"logits": (inputs["input_ids"] * inputs["attention_mask"]).sum(axis=1, keepdims=True) * 1.0}


@dataclass(eq=False)
class Call:
    inputs: Mapping[str, IntArray]
    timeout_seconds: float | None
    outcome: asyncio.Future[dict[str, FloatArray]]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inputs["input_ids"].shape

    def succeed(self) -> None:
        self.outcome.set_result(answer(self.inputs))

    def fail(self, error: Exception) -> None:
        self.outcome.set_exception(error)


@dataclass
class Backend:
    """Holds every call until the test ends it."""

    calls: list[Call] = field(default_factory=list)
    arrived: asyncio.Queue[Call] = field(default_factory=asyncio.Queue)

    async def infer(self, inputs: Mapping[str, IntArray], timeout_seconds: float | None) -> Inferred:
        call = Call(inputs, timeout_seconds, asyncio.get_running_loop().create_future())
        self.calls.append(call)
        self.arrived.put_nowait(call)
        return Inferred(await call.outcome)

    async def next(self) -> Call:
        async with asyncio.timeout(5):
            return await self.arrived.get()


@dataclass
class Setup:
    backend: Backend
    batcher: Batcher
    tasks: list[asyncio.Task[Batched]] = field(default_factory=list)

    def ask(self, *texts: Tokens, seconds: float | None = None) -> asyncio.Task[Batched]:
        deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
        task = asyncio.ensure_future(self.batcher.submit(texts, deadline=deadline))
        self.tasks.append(task)
        return task


def build(*, max_inflight: int = 1, queue_tokens: int = 4096, shapes: Shapes = SHAPES) -> Setup:
    backend = Backend()
    limits = BatchLimits(max_inflight=max_inflight, queue_tokens=queue_tokens)
    batcher = Batcher(backend.infer, shapes=shapes, limits=limits, pad_id=0, subject="m@1")
    return Setup(backend, batcher)


async def settled() -> None:
    """Lets everything that can run, run."""
    for _ in range(10):
        await asyncio.sleep(0)


def logits(batched: Batched) -> list[float]:
    return [float(row["logits"][0]) for row in batched.rows]


async def test_one_caller_never_waits_for_company() -> None:
    setup = build()
    asked = setup.ask(text(5))
    call = await setup.backend.next()
    assert call.shape == (1, 8)
    call.succeed()
    assert logits(await asked) == [5.0]


async def test_what_arrives_during_a_call_leaves_together_with_the_next() -> None:
    setup = build()
    first = setup.ask(text(3))
    call = await setup.backend.next()
    rest = [setup.ask(text(n, first=n)) for n in (4, 5, 6)]
    await settled()
    assert len(setup.backend.calls) == 1
    call.succeed()
    (await setup.backend.next()).succeed()
    assert logits(await first) == [3.0]
    assert [logits(await task) for task in rest] == [[16.0], [25.0], [36.0]]
    assert [c.shape for c in setup.backend.calls] == [(1, 8), (3, 8)]


async def test_what_arrives_in_the_same_turn_of_the_loop_leaves_in_one_call() -> None:
    setup = build()
    for _ in range(4):
        setup.ask(text(8))
    assert (await setup.backend.next()).shape == (4, 8)


async def test_a_request_may_span_batches_and_is_answered_in_its_own_order() -> None:
    setup = build()
    asked = setup.ask(text(60), text(3), text(50), text(7))
    for _ in range(2):
        (await setup.backend.next()).succeed()
    assert logits(await asked) == [60.0, 3.0, 50.0, 7.0]
    assert [c.shape for c in setup.backend.calls] == [(2, 64), (2, 8)]


async def test_as_many_calls_as_allowed_are_under_way() -> None:
    setup = build(max_inflight=2)
    setup.ask(text(3))
    await setup.backend.next()
    setup.ask(text(3))
    await setup.backend.next()
    setup.ask(text(3))
    await settled()
    assert len(setup.backend.calls) == 2


async def test_a_caller_who_cancels_leaves_before_the_batch_is_sent() -> None:
    setup = build()
    setup.ask(text(3))
    call = await setup.backend.next()
    gone, stays = setup.ask(text(4)), setup.ask(text(5))
    await settled()
    gone.cancel()
    call.succeed()
    assert (await setup.backend.next()).shape == (1, 8)
    assert not stays.done()


async def test_a_call_that_nobody_waits_for_any_more_is_cancelled() -> None:
    setup = build()
    one, other = setup.ask(text(3)), setup.ask(text(4))
    call = await setup.backend.next()
    one.cancel()
    await settled()
    assert not call.outcome.cancelled()
    other.cancel()
    await settled()
    assert call.outcome.cancelled()


async def test_after_a_cancelled_call_the_next_batch_leaves() -> None:
    setup = build()
    setup.ask(text(3))
    await setup.backend.next()
    later = setup.ask(text(4))
    await settled()
    setup.tasks[0].cancel()
    (await setup.backend.next()).succeed()
    assert logits(await later) == [4.0]


async def test_the_call_gets_the_latest_deadline_of_its_members() -> None:
    setup = build()
    setup.ask(text(3), seconds=1.0)
    setup.ask(text(3), seconds=9.0)
    timeout = (await setup.backend.next()).timeout_seconds
    assert timeout is not None
    assert 8.0 < timeout <= 9.0


async def test_one_member_without_a_deadline_means_a_call_without_one() -> None:
    setup = build()
    setup.ask(text(3), seconds=1.0)
    setup.ask(text(3))
    assert (await setup.backend.next()).timeout_seconds is None


async def test_a_deadline_that_passed_before_is_refused_at_once() -> None:
    setup = build()
    with pytest.raises(DeadlineExceeded):
        await setup.ask(text(3), seconds=-0.5)
    assert not setup.backend.calls


async def test_who_expires_in_the_queue_is_told_by_how_much_and_is_not_sent() -> None:
    setup = build()
    setup.ask(text(3))
    call = await setup.backend.next()
    late, fine = setup.ask(text(4), seconds=0.001), setup.ask(text(5))
    await settled()
    await asyncio.sleep(0.002)  # the deadline itself is what passes here
    call.succeed()
    assert (await setup.backend.next()).shape == (1, 8)
    with pytest.raises(DeadlineExceeded) as caught:
        await late
    assert float(caught.value.metadata["missing_seconds"]) > 0
    assert not fine.done()


async def test_a_full_queue_refuses_and_takes_again_once_it_drained() -> None:
    setup = build(queue_tokens=16)
    setup.ask(text(3))
    call = await setup.backend.next()
    waiting = setup.ask(text(8), text(8))
    await settled()
    with pytest.raises(Overloaded):
        await setup.ask(text(3))
    call.succeed()
    (await setup.backend.next()).succeed()
    await waiting
    again = setup.ask(text(3))
    (await setup.backend.next()).succeed()
    assert logits(await again) == [3.0]


async def test_cancelled_callers_free_their_place_in_the_queue() -> None:
    setup = build(queue_tokens=16)
    setup.ask(text(3))
    await setup.backend.next()
    gone = setup.ask(text(8), text(8))
    await settled()
    gone.cancel()
    await settled()
    setup.ask(text(8), text(8))
    await settled()
    assert not any(task.done() for task in setup.tasks if task is not gone)


async def test_a_batch_that_fails_is_sent_again_one_by_one_so_that_one_text_harms_no_other() -> None:
    setup = build()
    tasks = [setup.ask(text(n)) for n in (3, 4, 5)]
    (await setup.backend.next()).fail(RuntimeError("a row of these"))
    for _ in range(3):
        call = await setup.backend.next()
        assert call.shape == (1, 8)
        if call.inputs["attention_mask"].sum() == 4:
            call.fail(RuntimeError("this row"))
        else:
            call.succeed()
    assert logits(await tasks[0]) == [3.0]
    assert logits(await tasks[2]) == [5.0]
    with pytest.raises(RuntimeError, match="this row"):
        await tasks[1]


async def test_a_backend_that_is_gone_is_said_to_all_at_once() -> None:
    setup = build()
    tasks = [setup.ask(text(n)) for n in (3, 4)]
    (await setup.backend.next()).fail(BackendUnavailable("gone", reason="TRITON_UNAVAILABLE"))
    for task in tasks:
        with pytest.raises(BackendUnavailable):
            await task
    assert len(setup.backend.calls) == 1


async def test_a_request_of_which_one_part_failed_takes_its_other_parts_out_of_the_queue() -> None:
    setup = build()
    asked = setup.ask(text(60), text(3))
    (await setup.backend.next()).fail(RuntimeError("no"))
    with pytest.raises(RuntimeError):
        await asked
    await settled()
    assert len(setup.backend.calls) == 1


async def test_closing_answers_what_was_taken_and_takes_nothing_more() -> None:
    setup = build()
    first = setup.ask(text(3))
    call = await setup.backend.next()
    second = setup.ask(text(4))
    await settled()
    closing = asyncio.ensure_future(setup.batcher.close())
    await settled()
    with pytest.raises(BackendUnavailable):
        await setup.ask(text(5))
    call.succeed()
    (await setup.backend.next()).succeed()
    await closing
    assert logits(await first) == [3.0]
    assert logits(await second) == [4.0]


async def test_closing_an_idle_batcher_returns_at_once() -> None:
    async with asyncio.timeout(1):
        await build().batcher.close()


async def test_times_in_queue_and_call_are_told() -> None:
    setup = build()
    setup.ask(text(3))
    call = await setup.backend.next()
    asked = setup.ask(text(4))
    await settled()
    call.succeed()
    (await setup.backend.next()).succeed()
    batched = await asked
    assert batched.queue_seconds > 0
    assert batched.infer_seconds > 0


async def test_warming_sends_every_shape_once() -> None:
    setup = build()
    warming = asyncio.ensure_future(setup.batcher.warm())
    for _ in SHAPES.all():
        (await setup.backend.next()).succeed()
    await warming
    assert [c.shape for c in setup.backend.calls] == SHAPES.all()


async def test_padded_rows_carry_one_real_token_each() -> None:
    setup = build(shapes=Shapes((8,), (1, 4), token_budget=256, max_rows=8, call_tokens=64))
    setup.ask(text(3), text(4))
    call = await setup.backend.next()
    assert call.shape == (4, 8)
    assert np.array_equal(call.inputs["attention_mask"].sum(axis=1), [3, 4, 1, 1])
    call.succeed()
    assert logits(await setup.tasks[0]) == [3.0, 4.0]


class Observer:
    def __init__(self) -> None:
        self.sent: list[tuple[int, int, int]] = []

    def batch_sent(self, *, num_texts: int, num_tokens: int, num_padded_tokens: int) -> None:
        self.sent.append((num_texts, num_tokens, num_padded_tokens))

    def watch_queue(self, waiting_tokens: object) -> None:
        self.waiting_tokens = waiting_tokens


async def test_every_batch_and_the_queue_can_be_observed() -> None:
    backend, observer = Backend(), Observer()
    batcher = Batcher(
        backend.infer, shapes=SHAPES, limits=BatchLimits(), pad_id=0, subject="m@1", observe=observer
    )
    texts: Sequence[Tokens] = [text(3), text(5)]
    asked = asyncio.ensure_future(batcher.submit(texts))
    (await backend.next()).succeed()
    await asked
    assert observer.sent == [(2, 8, 16)]
    assert callable(observer.waiting_tokens)
    assert observer.waiting_tokens() == 0
