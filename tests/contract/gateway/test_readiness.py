"""The health of a gateway as a whole: not before its versions had their chance, and not never."""

from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2

from tests.contract.fake_triton import FakeTriton
from tests.contract.gateway.calls import until
from tests.contract.gateway.pools import over, pool, write
from tests.contract.gateway.stack import NOT_SERVING, SERVING, Stack, gateway
from tests.contract.versions import publish, route


@pytest.fixture(autouse=True)
def repository(tmp_path: Path) -> Path:
    """Version 1 of "sentiment", right, and of "topic", wrong."""
    publish(tmp_path / "repository", 1)
    publish(tmp_path / "repository", 1, model="topic", shift=1.0)
    return tmp_path / "repository"


async def health(stack: Stack) -> object:
    return (await stack.health.Check(health_pb2.HealthCheckRequest(service=""))).status


async def until_ready(stack: Stack) -> None:
    async for answer in stack.health.Watch(health_pb2.HealthCheckRequest(service="")):
        if answer.status == SERVING:
            return


async def test_without_routes_a_gateway_is_ready_at_once(tmp_path: Path, triton: FakeTriton) -> None:
    async with gateway(tmp_path, triton.address) as stack:
        await until_ready(stack)
        assert not triton.calls


async def test_a_gateway_is_ready_once_its_versions_are_proven(tmp_path: Path, triton: FakeTriton) -> None:
    write(tmp_path, route(v1=1))
    triton.hold()
    async with gateway(tmp_path, triton.address) as stack:
        await until(lambda: bool(triton.calls))
        assert await health(stack) == NOT_SERVING
        triton.release()
        await until_ready(stack)
        assert await stack.check("sentiment") == SERVING


async def test_a_version_that_failed_keeps_no_gateway_out(tmp_path: Path) -> None:
    async with pool(tmp_path) as cpu:
        pod = await cpu.add(1)
        pod.loaded["topic"] = {1}
        async with over(tmp_path, cpu, routes=(route(v1=1), route("topic", v1=1))) as stack:
            await until_ready(stack)
            assert await stack.check("topic") == NOT_SERVING


async def test_a_version_that_does_not_come_keeps_no_gateway_out_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.readiness._LATE_SECONDS", 0.5)
    async with pool(tmp_path) as cpu:
        await cpu.add(7)
        async with over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
            assert await health(stack) == NOT_SERVING
            await until_ready(stack)


async def test_a_pool_from_zero_keeps_no_gateway_out(tmp_path: Path) -> None:
    async with pool(tmp_path) as cpu, over(tmp_path, cpu, routes=(route(v1=1),)) as stack:
        await until_ready(stack)
