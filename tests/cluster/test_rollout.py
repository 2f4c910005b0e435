"""A rollout over pools: gateways of one ConfigMap share servers, which hold what they were started with."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from conch.v1 import models_pb2
from tests.cluster.api_server import ApiServer
from tests.cluster.gateways import LEDGER, ROUTES, lines, release, shifted, until, until_held, until_problem
from tests.contract.fake_triton import FakeTriton, running
from tests.contract.gateway.stack import Stack, gateway
from tests.contract.versions import publish, route


@pytest.fixture(autouse=True)
def cluster(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    """The cluster that gateways believe to be in."""
    monkeypatch.setenv("CONCH_KUBERNETES_URL", api.url)
    monkeypatch.setattr("services.cluster.ledger._SPREAD_SECONDS", 0.0)
    return api


async def started(parts: AsyncExitStack, home: Path, *, held: set[int]) -> tuple[FakeTriton, list[Stack]]:
    """Returns a server of pool "cpu" that holds versions of "sentiment", and two gateways over it."""
    triton = await parts.enter_async_context(running())
    triton.loaded = {"sentiment": held}
    pools = {"cpu": {"address": triton.address}, "gpu": {"address": "127.0.0.1:1"}}
    stacks = []
    for name in ("one", "two"):
        for version in held:
            publish(home / name / "repository", version)
        stack = gateway(
            home / name,
            triton.address,
            routes_configmap=ROUTES,
            ledger_configmap=LEDGER,
            staged_by="pool",
            pools=pools,
        )
        stacks.append(await parts.enter_async_context(stack))
    return triton, stacks


def on_cpu(wanted: models_pb2.Route) -> models_pb2.Route:
    """Returns a route in pool "cpu"."""
    wanted.pool = "cpu"
    return wanted


async def test_between_staged_versions_a_change_loads_nothing_and_fails_no_call(
    tmp_path: Path, api: ApiServer
) -> None:
    release(api, on_cpu(route(v1=1, v2=0)), actor="ci", reason="helm revision 1")
    async with AsyncExitStack() as parts:
        triton, stacks = await started(parts, tmp_path, held={1, 2})
        await shifted(stacks, 1)
        stop = asyncio.Event()
        callers = [asyncio.create_task(call(stack, stop)) for stack in stacks]
        release(api, on_cpu(route(v1=0, v2=1)), actor="ci", reason="helm revision 2")
        await shifted(stacks, 2)
        change = await stacks[0].set_route(route(v1=1, v2=0), actor="anna", reason="back")
        assert change.after == on_cpu(route(v1=1, v2=0))  # the pool that holds is kept
        await until_held(stacks, change.after)
        stop.set()
        assert all(num > 0 for num in await asyncio.gather(*callers))
        assert (triton.loads, triton.unloads) == ([], [])
        await until(api, lambda: len(lines(api)) == 3)
        assert [c.actor for c in lines(api)] == ["ci", "ci", "anna"]


async def test_a_version_that_the_pool_does_not_hold_yet_waits_and_then_holds(
    tmp_path: Path, api: ApiServer
) -> None:
    release(api, on_cpu(route(v1=1)), actor="ci", reason="helm revision 1")
    async with AsyncExitStack() as parts:
        triton, stacks = await started(parts, tmp_path, held={1})
        await shifted(stacks, 1)
        for stack in stacks:
            publish(stack.home / "repository", 2)
        release(api, on_cpu(route(v2=1)), actor="ci", reason="helm revision 2")
        for stack in stacks:
            await until_problem(stack, "sentiment@2")
            assert (await stack.classify()).version == 1
        triton.loaded = {"sentiment": {1, 2}}  # as if the pool's pods had rolled
        await shifted(stacks, 2)
        for stack in stacks:
            await until_problem(stack, "")
        await until(api, lambda: len(lines(api)) == 2)
        assert lines(api)[1].reason == "helm revision 2"


async def call(stack: Stack, stop: asyncio.Event) -> int:
    """Calls until told to stop; returns how many calls were answered."""
    answered = 0
    while not stop.is_set():
        await stack.classify()
        answered += 1
    return answered
