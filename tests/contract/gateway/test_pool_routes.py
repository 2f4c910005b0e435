"""When a new route takes hold on a pool: what is proven where, what is told meanwhile, what never holds."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from conch.v1 import models_pb2
from tests.contract.fake_triton import sum_logits
from tests.contract.gateway.calls import until
from tests.contract.gateway.pools import Pool, over, pool, problem, sample, steady_calls, write
from tests.contract.gateway.stack import SERVING, Stack
from tests.contract.versions import damage, publish, route


@pytest.fixture(autouse=True)
def repository(tmp_path: Path) -> Path:
    """Versions 1 to 3 of "sentiment"; what fakes answer is right for the first two."""
    folder = tmp_path / "repository"
    publish(folder, 1)
    publish(folder, 2)
    publish(folder, 3, shift=1.0)
    return folder


async def until_problem(stack: Stack, words: str) -> None:
    async with asyncio.timeout(15):
        while True:
            told = await problem(stack)
            if words in told and (words or not told):
                return
            await asyncio.sleep(0.02)  # GetRoutes tells nobody by itself


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_a_route_takes_hold_once_half_of_the_servers_proved_it_and_says_so_until_then(
    tmp_path: Path, cpu: Pool
) -> None:
    for _ in range(3):
        await cpu.add(1)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await until(lambda: sample(stack, "conch_pool_servers", pool="cpu", state="ready") == 3)
        await stack.until_health("sentiment", SERVING)
        write(tmp_path, route(v2=1))
        await until_problem(stack, "sentiment@2: on 0 of 3 servers of pool cpu; the old route holds")
        assert sample(stack, "conch_routes_problem") == 1
        await cpu.add(1, 2)
        await until_problem(stack, "sentiment@2: on 1 of 4 servers of pool cpu")
        assert (await stack.classify()).version == 1
        await cpu.add(1, 2)
        await until_problem(stack, "sentiment@2: on 2 of 5 servers of pool cpu")
        await cpu.add(2)
        await until_problem(stack, "")
        assert (await stack.classify()).version == 2
        assert sample(stack, "conch_routes_problem") == 0


async def test_one_server_is_enough_when_what_answers_now_has_none_left(tmp_path: Path, cpu: Pool) -> None:
    old = await cpu.add(1)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await stack.until_health("sentiment", SERVING)
        write(tmp_path, route(v2=1))
        await until_problem(stack, "on 0 of 1")
        await cpu.add(2)
        for _ in range(2):
            await cpu.add(3)
        await until_problem(stack, "sentiment@2: on 1 of 4 servers of pool cpu")
        await cpu.terminate(old)
        await until_problem(stack, "")
        assert (await stack.classify()).version == 2


async def test_a_route_between_staged_versions_takes_hold_at_once_and_without_a_failed_call(
    tmp_path: Path, cpu: Pool
) -> None:
    for _ in range(2):
        await cpu.add(1, 2)
    async with over(tmp_path, cpu, routes=(route(v1=1, v2=0),)) as stack:
        await stack.until_health("sentiment@2", SERVING)
        async with steady_calls(stack) as calls:
            await stack.set_route(route(v1=0, v2=1))
            seen = len(calls.versions)
            await until(lambda: len(calls.versions) > seen + 20)
            await stack.set_route(route(v1=1, v2=0))
        assert calls.errors == []
        assert (await stack.classify()).version == 1


async def test_set_route_to_what_no_pod_staged_says_what_to_do(tmp_path: Path, cpu: Pool) -> None:
    await cpu.add(1)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await stack.until_health("sentiment", SERVING)
        code, words = await refusal(stack.set_route(route(v1=1, v2=1)))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert words == "version 2 of sentiment is not staged in pool cpu: add it to the release's values"
        assert (await stack.classify()).version == 1


async def test_set_route_waits_for_proofs(tmp_path: Path, cpu: Pool) -> None:
    await cpu.add(1, 2)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await stack.until_health("sentiment", SERVING)
        await stack.set_route(route(v2=1))
        assert (await stack.classify()).version == 2
        assert await problem(stack) == ""


async def test_wrong_answers_on_golden_examples_refuse_a_route_with_the_figure(
    tmp_path: Path, cpu: Pool
) -> None:
    await cpu.add(1, 3)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await stack.until_health("sentiment", SERVING)
        code, words = await refusal(stack.set_route(route(v1=1, v3=1)))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "sentiment@3" in words
        assert "max_abs_logit_difference" in words
        request = models_pb2.GetVersionRequest(model="sentiment", version=3)
        version = (await stack.models.GetVersion(request)).version
        assert version.state == models_pb2.Version.STATE_FAILED
        write(tmp_path, route(v3=1))
        await until_problem(stack, "max_abs_logit_difference")
        assert {(await stack.classify()).version for _ in range(10)} == {1}


@pytest.mark.parametrize(
    ("version", "code", "words"),
    [
        (4, grpc.StatusCode.NOT_FOUND, "no version 4"),
        (5, grpc.StatusCode.FAILED_PRECONDITION, "no certificate"),
        (6, grpc.StatusCode.FAILED_PRECONDITION, "damaged"),
    ],
)
async def test_what_the_repository_cannot_vouch_for_is_refused_whatever_pods_hold(
    tmp_path: Path, cpu: Pool, repository: Path, version: int, code: grpc.StatusCode, words: str
) -> None:
    publish(repository, 5, certified=False)
    damage(publish(repository, 6) / "tokenizer.json")
    await cpu.add(1, 4, 5, 6)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await stack.until_health("sentiment", SERVING)
        found, said = await refusal(stack.set_route(route(**{f"v{version}": 1})))
        assert found is code
        assert words in said


async def test_a_server_that_is_late_is_used_as_soon_as_it_is_there(tmp_path: Path, cpu: Pool) -> None:
    await cpu.add(1, 2)
    await cpu.add(1)
    async with over(tmp_path, cpu, routes=(route(v1=1, v2=1),)) as stack:
        await stack.until_health("sentiment", SERVING)
        assert {(await stack.classify()).version for _ in range(40)} == {1, 2}


async def test_a_model_may_move_from_pool_to_pool_without_a_failed_call(tmp_path: Path, cpu: Pool) -> None:
    async with pool(tmp_path, "other") as other:
        await cpu.add(1)
        there = await other.add(1, logits=sum_logits)
        here, moved = route(v1=1), route(v1=1)
        here.pool, moved.pool = "cpu", "other"
        async with over(tmp_path, cpu, other, routes=(here,)) as stack:
            await stack.until_health("sentiment", SERVING)
            assert not there.calls
            async with steady_calls(stack) as calls:
                await stack.set_route(moved)
                seen = len(there.calls)
                await until(lambda: len(there.calls) > seen + 20)
            assert calls.errors == []


async def test_a_gateway_that_comes_in_the_middle_of_a_rollout_answers_by_what_held_before(
    tmp_path: Path, cpu: Pool
) -> None:
    await cpu.add(1)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await stack.until_health("sentiment", SERVING)
    async with over(tmp_path, cpu, routes=(route(v2=1),)) as stack:
        await stack.until_health("", SERVING)
        assert (await stack.classify()).version == 1
        await until_problem(stack, "sentiment@2: on 0 of 1 servers of pool cpu; the old route holds")
        await cpu.add(2)
        await until_problem(stack, "")
        assert (await stack.classify()).version == 2
        changes = await stack.models.ListRouteChanges(models_pb2.ListRouteChangesRequest())
        assert [change.after.versions[0].version for change in changes.changes] == [2, 1]


async def test_a_gateway_whose_old_route_no_server_has_takes_the_new_one(tmp_path: Path, cpu: Pool) -> None:
    old = await cpu.add(1)
    async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await stack.until_health("sentiment", SERVING)
    await cpu.terminate(old)
    await cpu.add(2)
    async with over(tmp_path, cpu, routes=(route(v2=1),)) as stack:
        await stack.until_health("", SERVING)
        await until_problem(stack, "")
        assert (await stack.classify()).version == 2
