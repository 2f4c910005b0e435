"""Pools of servers that come and go: who gets calls, who does not, and that no call fails meanwhile."""

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from conch.v1 import job_pb2, models_pb2
from tests.contract.fake_triton import FakeTriton, sum_logits
from tests.contract.gateway.calls import until
from tests.contract.gateway.pools import Pool, over, pool, problem, sample, steady_calls, write
from tests.contract.gateway.stack import NOT_SERVING, SERVING, Stack
from tests.contract.versions import publish, route


@pytest.fixture(autouse=True)
def repository(tmp_path: Path) -> Path:
    """Versions 1 and 2 of "sentiment"."""
    folder = tmp_path / "repository"
    publish(folder, 1)
    publish(folder, 2)
    return folder


def wrong(ids: Any, mask: Any) -> Any:
    return sum_logits(ids, mask) + 1


def num_answered(pod: FakeTriton) -> int:
    return len(pod.calls)


async def proven_on(stack: Stack, *pods: FakeTriton, version: int = 1) -> None:
    """Waits until these pods take calls."""
    ports = {pod.address for pod in pods}

    def places() -> set[str]:
        entry = stack.serving._table.entries.get(("sentiment", version))
        served = entry.served if entry else None
        return {place.server.address for place in served.crew.places} if served else set()

    await until(lambda: places() == ports)


async def test_nothing_is_staged_or_loaded_and_graphs_stay_where_they_are(tmp_path: Path, cpu: Pool) -> None:
    pod = await cpu.add(1)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await stack.until_health("sentiment", SERVING)
        assert (await stack.classify()).runtime == job_pb2.RUNTIME_ONNXRUNTIME
    assert (pod.loads, pod.unloads) == ([], [])
    assert not (tmp_path / "staged").exists()
    (brought,) = (p for p in (tmp_path / "versions").iterdir() if p.is_dir())
    assert {p.name for p in brought.iterdir()} == {
        "certificate.json",
        "golden.json",
        "manifest.json",
        "tokenizer.json",
    }


async def test_every_server_proves_a_version_and_then_shares_its_calls(tmp_path: Path, cpu: Pool) -> None:
    pods = [await cpu.add(1) for _ in range(3)]
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await proven_on(stack, *pods)
        for pod in pods:
            pod.calls.clear()
        for _ in range(9):
            await stack.classify()
        assert [num_answered(pod) for pod in pods] == [3, 3, 3]
        assert sample(stack, "conch_pool_servers", pool="cpu", state="ready") == 3


async def test_calls_at_once_follow_the_number_of_servers(tmp_path: Path, cpu: Pool) -> None:
    pods = [await cpu.add(1) for _ in range(2)]
    async with over(tmp_path, cpu, routes=(route(v1=1),), max_rows=1) as stack:
        await proven_on(stack, *pods)
        for pod in pods:
            pod.calls.clear()
            pod.hold()
        async with steady_calls(stack, callers=4):
            await until(lambda: [num_answered(pod) for pod in pods] == [1, 1])
            for pod in pods:
                pod.release()


async def test_a_server_that_answers_wrong_is_kept_out_without_hurting_the_others(
    tmp_path: Path, cpu: Pool
) -> None:
    liar, honest = await cpu.add(1, logits=wrong), await cpu.add(1)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await proven_on(stack, honest)
        labels = {"pool": "cpu", "model": "sentiment", "version": "1"}
        await until(lambda: sample(stack, "conch_version_servers_kept_out", **labels) == 1)
        liar.calls.clear()
        for _ in range(10):
            await stack.classify()
        assert not liar.calls
        assert await stack.check("sentiment@1") == SERVING


async def test_a_version_that_is_wrong_everywhere_has_failed_with_the_figure(
    tmp_path: Path, cpu: Pool
) -> None:
    pod = await cpu.add(1, logits=wrong)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        labels = {"model": "sentiment", "version": "1", "state": "failed"}
        await until(lambda: sample(stack, "conch_version_state", **labels) == 1)
        request = models_pb2.GetVersionRequest(model="sentiment", version=1)
        version = (await stack.models.GetVersion(request)).version
        assert version.state == models_pb2.Version.STATE_FAILED
        assert "max_abs_logit_difference" in version.state_reason
        assert pod.address in version.state_reason
        with pytest.raises(grpc.aio.AioRpcError, match="did not prove itself"):
            await stack.classify()


async def test_a_rolling_replacement_fails_no_call(tmp_path: Path, cpu: Pool) -> None:
    old = [await cpu.add(1) for _ in range(3)]
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await proven_on(stack, *old)
        async with steady_calls(stack) as calls:
            await until(lambda: len(calls.versions) > 20)
            write(tmp_path, route(v2=1))
            new: list[FakeTriton] = []
            for pod in old:
                new.append(await cpu.add(2))
                await until(lambda: stack.serving._roster.pools["cpu"].states()["proving"] == 0)
                await proven_on(stack, *new, version=2)
                await cpu.terminate(pod)
            await until(lambda: calls.versions[-1] == 2)
            seen = len(calls.versions)
            await until(lambda: len(calls.versions) > seen + 20)
        assert [str(error.details()) for error in calls.errors] == []
        assert set(calls.versions[seen:]) == {2}
        assert await problem(stack) == ""


async def test_a_server_that_dies_in_the_middle_of_calls_costs_none(tmp_path: Path, cpu: Pool) -> None:
    pods = [await cpu.add(1) for _ in range(2)]
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await proven_on(stack, *pods)
        for pod in pods:
            pod.hold()
        async with steady_calls(stack, callers=6) as calls:
            await until(lambda: all(pod.calls for pod in pods))
            await pods[0].die()
            pods[1].release()
            await until(lambda: len(calls.versions) > 50)
            await proven_on(stack, pods[1])
        assert calls.errors == []
        assert sample(stack, "conch_pool_servers", pool="cpu", state="unreachable") == 1


async def test_calls_at_a_server_that_vanished_go_elsewhere_long_before_their_deadlines(
    tmp_path: Path, cpu: Pool
) -> None:
    pods = [await cpu.add(1) for _ in range(2)]
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await proven_on(stack, *pods)
        pods[0].hold()
        pods[0].calls.clear()
        pods[0].frozen = True
        async with steady_calls(stack) as calls:
            await until(lambda: bool(pods[0].calls))
            await until(lambda: pods[0].num_cancelled > 0, seconds=15)
        assert calls.errors == []


async def test_a_server_that_came_back_proves_itself_again_before_it_gets_calls(
    tmp_path: Path, cpu: Pool
) -> None:
    pods = [await cpu.add(1) for _ in range(2)]
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await proven_on(stack, *pods)
        await pods[0].die()
        await proven_on(stack, pods[1])
        pods[0].logits = wrong
        await pods[0].start()
        labels = {"pool": "cpu", "model": "sentiment", "version": "1"}
        await until(lambda: sample(stack, "conch_version_servers_kept_out", **labels) == 1)
        await proven_on(stack, pods[1])


async def test_a_call_that_a_leaving_server_refuses_goes_to_another(tmp_path: Path, cpu: Pool) -> None:
    pods = [await cpu.add(1) for _ in range(2)]
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await proven_on(stack, *pods)
        for pod in pods:
            pod.failures.append((grpc.StatusCode.NOT_FOUND, "Request for unknown model"))
        pods[1].failures.clear()
        for _ in range(4):
            await stack.classify()
        assert not pods[0].failures


async def test_a_call_is_tried_twice_and_no_more(tmp_path: Path, cpu: Pool) -> None:
    pods = [await cpu.add(1) for _ in range(3)]
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await proven_on(stack, *pods)
        for pod in pods:
            pod.calls.clear()
            pod.failures.append((grpc.StatusCode.UNAVAILABLE, "gone"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stack.classify()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert sum(len(pod.failures) for pod in pods) == 1


async def test_discovery_brings_servers_and_takes_them(tmp_path: Path, cpu: Pool) -> None:
    first = await cpu.add(1)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await proven_on(stack, first)
        second = await cpu.add(1)
        await proven_on(stack, first, second)
        cpu.name_only(second)
        server = stack.serving._roster.pools["cpu"].servers[first.address]
        await until(lambda: server.is_leaving)
        first.calls.clear()
        for _ in range(6):
            await stack.classify()
        assert not first.calls
        cpu.file.unlink()  # nobody can say who is there: no reason to leave those who answer
        await stack.classify()


async def test_a_pool_for_plans_that_serves_the_onnx_twin_says_so(tmp_path: Path, cpu: Pool) -> None:
    await cpu.add(1)
    async with over(tmp_path, cpu, runtime="tensorrt", routes=(route(v1=1),)) as stack:
        await stack.until_health("sentiment", SERVING)
        served = await stack.classify()
        assert (served.runtime, served.precision) == (
            job_pb2.RUNTIME_ONNXRUNTIME,
            job_pb2.PRECISION_FP32,
        )
        assert not served.uncertified
        assert sample(stack, "conch_pool_fallback", pool="cpu", model="sentiment") == 1


async def test_a_plan_answers_under_its_own_certificate(tmp_path: Path, repository: Path, cpu: Pool) -> None:
    plan = models_pb2.Plan(path="model.sm90.plan", compute_capability="9.0", precision=job_pb2.PRECISION_BF16)
    publish(repository, 7, plans=[plan])
    pod = await cpu.add(7)
    pod.backend = "tensorrt"
    async with over(tmp_path, cpu, runtime="tensorrt", routes=(route(v7=1),)) as stack:
        await stack.until_health("sentiment", SERVING)
        served = await stack.classify()
        assert (served.runtime, served.precision) == (job_pb2.RUNTIME_TENSORRT, job_pb2.PRECISION_BF16)
        assert sample(stack, "conch_pool_fallback", pool="cpu", model="sentiment") == 0


async def test_a_plan_without_a_certificate_of_its_own_does_not_answer(tmp_path: Path, cpu: Pool) -> None:
    pod = await cpu.add(1)
    pod.backend = "tensorrt"
    async with over(tmp_path, cpu, runtime="tensorrt", routes=(route(v1=1),)) as stack:
        labels = {"model": "sentiment", "version": "1", "state": "failed"}
        await until(lambda: sample(stack, "conch_version_state", **labels) == 1)
        with pytest.raises(grpc.aio.AioRpcError, match="not certified for tensorrt"):
            await stack.classify()


async def test_series_of_a_version_end_with_it(tmp_path: Path, cpu: Pool) -> None:
    await cpu.add(1, 2)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await stack.until_health("sentiment", SERVING)
        await stack.classify()
        assert 'version="1"' in exposed(stack)
        await stack.set_route(route(v2=1))
        await until(lambda: 'version="1"' not in exposed(stack))
        await stack.classify()
        assert await stack.check("sentiment@1") == NOT_SERVING


def exposed(stack: Stack) -> str:
    from prometheus_client import generate_latest

    return generate_latest(stack.metrics.registry).decode()


async def test_two_pools_serve_a_model_each(tmp_path: Path, cpu: Pool) -> None:
    publish(tmp_path / "repository", 1, model="topic")
    async with pool(tmp_path, "other") as other:
        ours, theirs = await cpu.add(1), await other.add(1, model="topic")
        routes = (route(v1=1), route("topic", v1=1))
        routes[0].pool, routes[1].pool = "cpu", "other"
        async with over(tmp_path, cpu, other, routes=routes) as stack:
            await stack.until_health("sentiment", SERVING)
            await stack.until_health("topic", SERVING)
            ours.calls.clear()
            theirs.calls.clear()
            await stack.classify("topic")
            assert (num_answered(ours), num_answered(theirs)) == (0, 1)
