"""What is rehearsed: a version comes, goes back, another replaces it, and three bad ones are kept out.

Knows the chart's values and what callers and gateways must see; knows nothing about how pods are run.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc.aio

from conch.v1 import models_pb2, models_pb2_grpc
from services.errors import NotReady
from tests.cluster.api_server import ApiServer
from tests.rehearsal.cluster import Cluster
from tests.rehearsal.load import Load, Tally
from tests.rehearsal.versions import BAD, PLANNED, UNCERTIFIED, publish_all

_LOOK_SECONDS = 0.005
_PROOF_SECONDS = 60.0
_LEAVE_SECONDS = 1


@dataclass
class Step:
    """One change and what came of it."""

    name: str
    tally: Tally
    seconds: float | None = None
    """From the change of the routes to every gateway on them, where all versions were staged before."""
    seconds_after_pods: float | None = None
    """The same where pods had to come first: from the last of their changes that mattered."""
    said: str = ""
    """What was refused, in the words that a person would read."""
    pods_started: int = 0
    fallback: float | None = None
    """conch_pool_fallback of the new model."""


@dataclass
class Story:
    """All steps of one rehearsal."""

    steps: list[Step] = field(default_factory=list)

    @property
    def num_failed(self) -> int:
        """Calls that failed in any step."""
        return sum(len(step.tally.failures) for step in self.steps)

    @property
    def num_calls(self) -> int:
        """Calls of all steps."""
        return sum(step.tally.num_calls for step in self.steps)


def values(sentiment: Mapping[int, int], *, topic: int = 0, shadow: int = 0) -> dict[str, Any]:
    """Returns the release's values; `sentiment` are weights by version, `topic` a version of the GPU pool."""
    models: dict[str, Any] = {"sentiment": {"pool": "cpu", "versions": _weighted(sentiment)}}
    if shadow:
        models["sentiment"]["shadow"] = shadow
    if topic:
        models["topic"] = {"pool": "gpu", "versions": _weighted({topic: 100})}
    cpu = {"name": "cpu", "runtime": "onnxruntime", "replicas": 2, "leaveSeconds": _LEAVE_SECONDS}
    gpu = {"name": "gpu", "runtime": "tensorrt", "gpus": 1, "tensorrtVersion": "10.14.1.48", "replicas": 1}
    return {
        "database": {"embedded": {"enabled": False}},
        "trainer": {"enabled": False},
        "converter": {"enabled": False},
        "storage": {"pvc": {"existingClaim": "storage"}},
        "autoscaling": {"kind": "none"},
        "rollout": {"actor": "rehearsal"},
        "gateway": {"replicas": 2, "drainDelaySeconds": 1},
        "poolDefaults": {"warmSeconds": 2},
        "pools": [cpu, {**gpu, "leaveSeconds": _LEAVE_SECONDS}] if topic else [cpu],
        "models": models,
    }


@asynccontextmanager
async def installed(folder: Path) -> AsyncIterator[Cluster]:
    """Gives a release that serves sentiment@1 by two gateways over a pool of two Tritons."""
    storage = folder / "storage"
    await asyncio.to_thread(publish_all, storage)
    with ApiServer() as api:
        cluster = Cluster(folder, storage, api)
        try:
            await cluster.upgrade(values({1: 100}))
            await cluster.settled()
            yield cluster
        finally:
            await cluster.close()


async def rehearse(cluster: Cluster) -> AsyncIterator[Step]:
    """Gives each step as it is done."""
    yield await _shift(cluster, "canary: 1 -> 1 and 2", {1: 90, 2: 10})
    yield await _shift(cluster, "all to 2, both are staged", {1: 0, 2: 100})
    yield await _shift(cluster, "rollback to 1, both are staged", {1: 100, 2: 0})
    yield await _shift(cluster, "2 in the place of 1", {2: 100})
    yield await _bad(cluster, "3 answers wrong", {BAD: 100})
    yield await _cured(cluster, "rollback from 3", {2: 100})
    yield await _refused(cluster, "4 has no certificate", {UNCERTIFIED: 100})
    yield await _twin(cluster, "a plan for another GPU")


async def _shift(cluster: Cluster, name: str, weights: Mapping[int, int]) -> Step:
    before = _pods_started(cluster)
    load = Load(cluster.gateways(), ["sentiment"])
    await load.until(lambda tally: tally.num_calls >= 10)
    followed = asyncio.create_task(_all_on(cluster.gateways(), weights))
    await cluster.upgrade(values(weights))
    async with asyncio.timeout(_PROOF_SECONDS):
        shifted = await followed
    # Where pods had to come first, the change that the gateways waited for was the last of these.
    cause = max(moment for moment in cluster.changes if moment <= min(shifted))
    await cluster.settled()
    seen = load.tally.num_calls
    await load.until(lambda tally: tally.num_calls >= seen + 20)
    seconds, num_pods = max(shifted) - cause, _pods_started(cluster) - before
    step = Step(name, await load.stop(), pods_started=num_pods)
    step.seconds, step.seconds_after_pods = (None, seconds) if num_pods else (seconds, None)
    return step


async def _bad(cluster: Cluster, name: str, weights: Mapping[int, int]) -> Step:
    before = _pods_started(cluster)
    load = Load(cluster.gateways(), ["sentiment"])
    await load.until(lambda tally: tally.num_calls >= 10)
    await cluster.upgrade(values(weights))
    async with asyncio.timeout(_PROOF_SECONDS):
        said = await _problem(cluster.gateways()[0], "prove")
    seen = load.tally.num_calls
    await load.until(lambda tally: tally.num_calls >= seen + 50)
    return Step(name, await load.stop(), said=said, pods_started=_pods_started(cluster) - before)


async def _cured(cluster: Cluster, name: str, weights: Mapping[int, int]) -> Step:
    """Goes back to what held all along; over once no gateway complains any more."""
    load = Load(cluster.gateways(), ["sentiment"])
    await cluster.upgrade(values(weights))
    changed = cluster.changes[-1]
    async with asyncio.timeout(_PROOF_SECONDS):
        await asyncio.gather(*(_problem(gateway, "") for gateway in cluster.gateways()))
    seconds = time.monotonic() - changed
    await cluster.settled()
    return Step(name, await load.stop(), seconds)


async def _refused(cluster: Cluster, name: str, weights: Mapping[int, int]) -> Step:
    load = Load(cluster.gateways(), ["sentiment"])
    said = ""
    try:
        await cluster.upgrade(values(weights))
    except NotReady as error:
        said = error.message
    await load.until(lambda tally: tally.num_calls >= 20)
    return Step(name, await load.stop(), said=said)


async def _twin(cluster: Cluster, name: str) -> Step:
    """Adds a pool of GPUs, of which this machine has none, and a model with a plan for one."""
    await cluster.upgrade(values({2: 100}, topic=PLANNED))
    await cluster.settled()
    load = Load(cluster.gateways(), ["sentiment", "topic"])
    async with asyncio.timeout(_PROOF_SECONDS):
        await load.until(lambda tally: min(tally.num_answers("topic"), tally.num_answers("sentiment")) >= 20)
    step = Step(name, await load.stop(), said="; ".join(cluster.events("PlanUnfit")))
    step.fallback = max(await asyncio.gather(*map(_fallback, cluster.gateways())))
    return step


async def _fallback(gateway: str) -> float:
    """Returns what a gateway's /metrics say of the twin that stands in for a plan."""
    host = gateway.rpartition(":")[0]
    text = await asyncio.to_thread(lambda: urlopen(f"http://{host}:9090/metrics").read().decode())
    found = [line for line in text.splitlines() if line.startswith("conch_pool_fallback{")]
    return max((float(line.rpartition(" ")[2]) for line in found), default=0.0)


async def _all_on(gateways: list[str], weights: Mapping[int, int]) -> list[float]:
    """Returns time.monotonic() of the moments when each gateway began to answer by `weights`."""
    return await asyncio.gather(*(_one_on(gateway, weights) for gateway in gateways))


async def _one_on(gateway: str, weights: Mapping[int, int]) -> float:
    async with grpc.aio.insecure_channel(gateway) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        while True:
            routes = (await stub.GetRoutes(models_pb2.GetRoutesRequest())).routes
            held = {route.model: {v.version: v.weight for v in route.versions} for route in routes.routes}
            if held.get("sentiment") == weights:
                return time.monotonic()
            await asyncio.sleep(_LOOK_SECONDS)


async def _problem(gateway: str, part: str) -> str:
    """Returns why a gateway's routes are not what the release says, once that says `part`; "" = nothing."""
    async with grpc.aio.insecure_channel(gateway) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        while True:
            problem = (await stub.GetRoutes(models_pb2.GetRoutesRequest())).problem
            if part in problem if part else not problem:
                return problem
            await asyncio.sleep(_LOOK_SECONDS)


def _weighted(weights: Mapping[int, int]) -> list[dict[str, int]]:
    return [{"version": version, "weight": weight} for version, weight in weights.items()]


def _pods_started(cluster: Cluster) -> int:
    return sum(pool.num_started for pool in cluster.pools.values())
