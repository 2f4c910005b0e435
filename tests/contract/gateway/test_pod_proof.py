"""The container beside Triton whose readiness is the pod's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conch.v1 import models_pb2
from services.errors import InvalidRequest
from services.gateway.pod_proof import Proof, ProofSettings
from tests.contract.fake_triton import FakeTriton, running, sum_logits
from tests.contract.gateway.calls import until
from tests.contract.gateway.pools import write
from tests.contract.gateway.stack import NOT_SERVING, SERVING
from tests.contract.versions import publish, route


def wrong(ids: Any, mask: Any) -> Any:
    return sum_logits(ids, mask) + 1


@asynccontextmanager
async def pod(home: Path, *versions: int, **knobs: Any) -> AsyncIterator[FakeTriton]:
    """Yields a pod's Triton that has loaded these versions of its staged repository."""
    async with running(**knobs) as triton:
        triton.loaded = {"sentiment": set(versions)}
        yield triton


@asynccontextmanager
async def proof(home: Path, triton: FakeTriton) -> AsyncIterator[health_pb2_grpc.HealthStub]:
    """Yields the health of the proof beside `triton`."""
    settings = ProofSettings(
        home=home,
        pool="cpu",
        staged=home / "repository",
        routes_file=home / "routes.json",
        triton_address=triton.address,
        proof_address="127.0.0.1:0",
        warm_seconds=0,
    )
    made = await Proof.start(settings)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{made.health.port}") as channel:
        yield health_pb2_grpc.HealthStub(channel)
    await made.close()


async def until_told(health: health_pb2_grpc.HealthStub, status: Any, name: str = "") -> None:
    async for answer in health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=20):
        if answer.status == status:
            return


async def told(health: health_pb2_grpc.HealthStub) -> Any:
    return (await health.Check(health_pb2.HealthCheckRequest())).status


def routed(home: Path, *numbers: int, shadow: int = 0) -> None:
    made = route(**{f"v{number}": 1 for number in numbers})
    made.pool, made.shadow = "cpu", shadow
    other = models_pb2.Route(model="topic", pool="gpu")
    other.versions.add(version=1, weight=1)
    for number in {*numbers, shadow} - {0}:
        publish(home / "repository", number)
    write(home, made, other)


async def test_a_pod_is_ready_once_each_version_of_its_pool_answered_right(tmp_path: Path) -> None:
    routed(tmp_path, 1, 2)
    async with pod(tmp_path, 1) as triton, proof(tmp_path, triton) as health:
        await until_told(health, SERVING, "conch.v1.InferenceService/sentiment@1")
        assert await told(health) == NOT_SERVING
        triton.loaded["sentiment"].add(2)
        await until_told(health, SERVING)


async def test_a_pod_that_answers_wrong_is_never_ready(tmp_path: Path) -> None:
    routed(tmp_path, 1)
    async with pod(tmp_path, 1, logits=wrong) as triton, proof(tmp_path, triton) as health:
        await until(lambda: len(triton.calls) > 0)
        await until_told(health, NOT_SERVING, "conch.v1.InferenceService/sentiment@1")
        assert await told(health) == NOT_SERVING


async def test_a_pod_whose_triton_lost_a_version_is_ready_no_more(tmp_path: Path) -> None:
    routed(tmp_path, 1)
    async with pod(tmp_path, 1) as triton, proof(tmp_path, triton) as health:
        await until_told(health, SERVING)
        triton.loaded["sentiment"].clear()
        await until_told(health, NOT_SERVING)


async def test_no_rollout_waits_for_a_shadow(tmp_path: Path) -> None:
    routed(tmp_path, 1, shadow=5)
    async with pod(tmp_path, 1) as triton, proof(tmp_path, triton) as health:
        await until_told(health, SERVING)


async def test_a_pod_without_models_is_ready_at_once(tmp_path: Path) -> None:
    (tmp_path / "routes.json").write_text("{}")
    async with pod(tmp_path) as triton, proof(tmp_path, triton) as health:
        await until_told(health, SERVING)


async def test_routes_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "routes.json").write_text('{"routes": 1}')
    async with pod(tmp_path) as triton:
        with pytest.raises(InvalidRequest):
            async with proof(tmp_path, triton):
                pass
