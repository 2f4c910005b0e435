"""Deadlines, cancellation, overload and a dying Triton, over real sockets."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from conch.v1 import inference_pb2
from tests.contract.fake_triton import FakeTriton
from tests.contract.gateway.calls import CLASSIFY, refusal, request, until
from tests.contract.gateway.stack import SERVING, Stack, gateway
from tests.contract.versions import publish, route


@pytest.fixture
async def stack(tmp_path: Path, triton: FakeTriton) -> AsyncIterator[Stack]:
    """A gateway whose queue takes 64 padded tokens: eight short texts."""
    publish(tmp_path / "repository", 1)
    async with gateway(tmp_path, triton.address, queue_tokens=64) as started:
        await started.set_route(route(v1=1))
        triton.calls.clear()
        yield started


def ask(stack: Stack, text: str = "a film", *, seconds: float | None = 20) -> Any:
    return stack.inference.Classify(request(text), timeout=seconds)


async def answered(call: Any) -> Any:
    """Returns the response, or the error that a call ended with."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return error


async def test_a_callers_deadline_reaches_triton_as_its_own_and_as_a_parameter(
    stack: Stack, triton: FakeTriton
) -> None:
    await ask(stack, seconds=8)
    (call,) = triton.calls
    assert call.timeout_microseconds == pytest.approx(8e6, rel=0.02)
    assert call.seconds_left == pytest.approx(8, rel=0.02)


async def test_a_reserve_is_held_back_for_the_way_home(tmp_path: Path, triton: FakeTriton) -> None:
    publish(tmp_path / "repository", 1)
    async with gateway(tmp_path, triton.address, deadline_reserve_seconds=3) as stack:
        await stack.set_route(route(v1=1))
        triton.calls.clear()
        await ask(stack, seconds=8)
        assert triton.calls[0].seconds_left == pytest.approx(5, rel=0.03)


async def test_a_call_without_a_deadline_gets_the_default(stack: Stack, triton: FakeTriton) -> None:
    await ask(stack, seconds=None)
    assert triton.calls[0].seconds_left is not None
    assert 28 < triton.calls[0].seconds_left < 30.1


async def test_a_request_id_reaches_triton(stack: Stack, triton: FakeTriton) -> None:
    await asyncio.gather(ask(stack))
    await asyncio.gather(ask(stack))
    ids = {call.id for call in triton.calls}
    assert len(ids) == 2
    assert all(id.startswith("conch-") for id in ids)


async def test_a_caller_who_cancels_cancels_at_triton(stack: Stack, triton: FakeTriton) -> None:
    triton.hold()
    call = ask(stack)
    waiting = asyncio.ensure_future(answered(call))
    await triton.until(lambda: len(triton.calls) == 1)
    call.cancel()
    await triton.until(lambda: triton.num_cancelled == 1)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_deadline_that_passes_ends_the_call_at_triton(stack: Stack, triton: FakeTriton) -> None:
    triton.hold()
    error = await answered(ask(stack, seconds=0.3))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await triton.until(lambda: triton.num_cancelled == 1)


async def test_one_caller_who_leaves_does_not_take_the_batch_along(stack: Stack, triton: FakeTriton) -> None:
    triton.hold()
    first = asyncio.ensure_future(answered(ask(stack)))
    await triton.until(lambda: len(triton.calls) == 1)
    calls = [ask(stack, text) for text in ("one film", "other film")]
    waiting = [asyncio.ensure_future(answered(call)) for call in calls]
    await queued(stack, 16)
    triton.release()
    await first
    triton.hold()
    calls[0].cancel()
    triton.release()
    assert isinstance(await waiting[1], inference_pb2.ClassifyResponse)


async def queued(stack: Stack, num_tokens: int) -> None:
    """Waits until so many padded tokens wait in the gateway."""
    labels = {"model": "sentiment", "version": "1"}
    metrics = stack.metrics.registry
    await until(lambda: metrics.get_sample_value("conch_queue_tokens", labels) == num_tokens)


async def test_who_cancels_in_the_queue_is_never_sent(stack: Stack, triton: FakeTriton) -> None:
    triton.hold()
    first = asyncio.ensure_future(answered(ask(stack)))
    await triton.until(lambda: len(triton.calls) == 1)
    gone = ask(stack, "never sent")
    waiting = asyncio.ensure_future(answered(gone))
    await queued(stack, 8)
    gone.cancel()
    await queued(stack, 0)
    triton.release()
    await first
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(triton.calls) == 1


async def test_a_deadline_nearer_than_the_reserve_is_refused_at_once(
    tmp_path: Path, triton: FakeTriton
) -> None:
    publish(tmp_path / "repository", 1)
    async with gateway(tmp_path, triton.address, deadline_reserve_seconds=5) as stack:
        await stack.set_route(route(v1=1))
        triton.calls.clear()
        code, message, details = await refusal(ask(stack, seconds=4))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "deadline too near by" in message
        info = details["ErrorInfo"]
        assert float(info.metadata["missing_seconds"]) == pytest.approx(1, abs=0.2)
        assert not triton.calls


async def test_a_full_queue_says_so_to_programs(stack: Stack, triton: FakeTriton) -> None:
    triton.hold()
    waiting = [asyncio.ensure_future(answered(ask(stack))) for _ in range(9)]
    await queued(stack, 64)
    code, message, details = await refusal(ask(stack))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "64 tokens wait" in message
    retry, quota, info = (details[name] for name in ("RetryInfo", "QuotaFailure", "ErrorInfo"))
    assert retry.retry_delay.ToMilliseconds() > 0
    assert quota.violations[0].subject == "sentiment@1"
    assert info.reason == "QUEUE_FULL"
    triton.release()
    assert all(isinstance(a, inference_pb2.ClassifyResponse) for a in await asyncio.gather(*waiting))


async def test_a_triton_that_dies_under_load_gives_unavailable_or_success_and_then_success(
    stack: Stack, triton: FakeTriton
) -> None:
    seen: Counter[str] = Counter()
    over = asyncio.Event()

    async def caller() -> None:
        while not over.is_set():
            answer = await answered(ask(stack))
            error = isinstance(answer, grpc.aio.AioRpcError)
            seen[answer.code().name if error else "OK"] += 1
            await asyncio.sleep(0.005 if error else 0)

    callers = [asyncio.ensure_future(caller()) for _ in range(6)]
    await until(lambda: seen["OK"] > 50)
    await triton.die()
    await until(lambda: seen["UNAVAILABLE"] > 20)
    triton.loaded.clear()
    await triton.start()
    await stack.until_health("sentiment@1", SERVING)
    before = seen["OK"]
    await until(lambda: seen["OK"] > before + 50)
    over.set()
    await asyncio.gather(*callers)
    assert set(seen) == {"OK", "UNAVAILABLE"}


async def test_a_triton_that_is_leaving_is_unavailable_and_not_unknown(
    stack: Stack, triton: FakeTriton
) -> None:
    """After SIGTERM a real Triton answers NOT_FOUND for what it served a moment ago."""
    triton.failures.append((grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'sentiment' is not found"))
    code, _, details = await refusal(ask(stack))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "RetryInfo" in details


async def test_triton_saying_that_time_ran_out_is_a_deadline(stack: Stack, triton: FakeTriton) -> None:
    triton.failures.append((grpc.StatusCode.UNAVAILABLE, "Request timeout expired"))
    code, _, _ = await refusal(ask(stack))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_deadline_that_passed_on_the_way_is_not_worked_on(stack: Stack, triton: FakeTriton) -> None:
    call = stack.channel.unary_unary(CLASSIFY)
    error = await answered(call(request("late").SerializeToString(), timeout=0.0005))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not triton.calls
