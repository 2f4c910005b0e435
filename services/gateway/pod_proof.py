"""The proof of a Triton pod: whether the server beside it answers right for all that its pool is to serve.

Its health is the pod's readiness, so a rolling update stops at the first pod that answers wrong, while the
old pods go on. Knows the staged repository and one Triton; takes no calls and knows no gateway.
"""

import asyncio
from collections.abc import Iterable, Mapping

import structlog
from grpc_health.v1 import health_pb2

from conch.v1 import models_pb2
from services import routes, server
from services.gateway.metrics import Metrics
from services.gateway.pool_serving import PoolServing
from services.gateway.settings import GatewaySettings, PoolSettings
from services.gateway.table import FAILED, SERVING, Key, State, named

log = structlog.get_logger(__name__)


class ProofSettings(GatewaySettings):
    """The gateway's settings that speak of one Triton, and whose it is."""

    pool: str
    """Name of the pool that the pod belongs to. CONCH_POOL."""
    proof_address: str = "127.0.0.1:8003"
    """Where health is asked, host:port. CONCH_PROOF_ADDRESS."""

    def of_pod(self) -> GatewaySettings:
        """Returns the settings of a gateway that knows this Triton alone, and reads what lies beside it."""
        pool = PoolSettings(address=self.triton_address, runtime=self.runtime)
        update = {
            "staged_by": "pool",
            "pools": {self.pool: pool},
            "repository_uri": str(self.resolved_staged().absolute()),
        }
        return self.model_copy(update=update)


async def serve(settings: ProofSettings) -> None:
    """Proves until SIGTERM or SIGINT. Raises what Proof.start raises."""
    stopped = asyncio.create_task(server.stop_signal())
    proof = await Proof.start(settings)
    await stopped
    await proof.close()


class Proof:
    """The running parts. `health` answers at its port for the pod, and for each version by name."""

    def __init__(self, health: server.Server, serving: PoolServing, needed: frozenset[Key]) -> None:
        self.health, self._serving = health, serving
        self._task = asyncio.get_running_loop().create_task(_follow(serving, health, needed))

    @classmethod
    async def start(cls, settings: ProofSettings) -> "Proof":
        """Begins to prove what the pool's routes name.

        Raises InvalidRequest if the routes are none, OSError if they cannot be read or the port is taken.
        """
        found = routes.parse(settings.resolved_routes().read_text(encoding="utf-8"))
        # A route without pool is of whichever pool there is.
        ours = [route for route in found.routes if route.pool in ("", settings.pool)]
        health = server.build([])
        serving = PoolServing(settings.of_pod(), health=health.health, metrics=Metrics())
        await health.start(settings.proof_address, is_ready=False)
        await serving.start()
        await serving.shift(ours)
        return cls(health, serving, _needed(ours))

    async def close(self) -> None:
        """Proves no more."""
        self._task.cancel()
        await self.health.drain(0)
        await self._serving.close()


async def _follow(serving: PoolServing, health: server.Server, needed: frozenset[Key]) -> None:
    """Keeps health what the proofs say: a Triton that lost a version is not ready either."""
    status, told = health_pb2.HealthCheckResponse, None
    while True:
        lacking = {key: serving.state(key) for key in needed if serving.state(key)[0] != SERVING}
        if lacking != told:
            told = lacking
            await health.health.set("", status.NOT_SERVING if lacking else status.SERVING)
            _tell(lacking)
        await serving.moved()


def _needed(ours: Iterable[models_pb2.Route]) -> frozenset[Key]:
    """Returns what calls may be sent to; a shadow answers nobody, so no rollout waits for it."""
    return frozenset((route.model, v.version) for route in ours for v in route.versions)


def _tell(lacking: Mapping[Key, tuple[State, str]]) -> None:
    failed = {named(key): why for key, (state, why) in lacking.items() if state == FAILED}
    if failed:
        log.error("pod.unproven", **failed)
    elif not lacking:
        log.info("pod.proven")
