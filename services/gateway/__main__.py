"""`python -m services.gateway`: reads the settings, wires the parts, serves until SIGTERM, drains."""

import asyncio
import gc
import sys
from dataclasses import dataclass

import structlog
import uvloop

from conch.v1 import inference_pb2, inference_pb2_grpc, models_pb2, models_pb2_grpc
from services import logs, server
from services.errors import NotReady
from services.gateway.answering import Answering
from services.gateway.metrics import Metrics
from services.gateway.model_servicer import ModelServicer
from services.gateway.places import Places
from services.gateway.readiness import Readiness
from services.gateway.routing import Routing
from services.gateway.servicer import inference_servicer
from services.gateway.serving import serving
from services.gateway.settings import GatewaySettings
from services.gateway.streaming import Streaming
from services.settings import read
from services.telemetry import Exposition

log = structlog.get_logger(__name__)

_SERVICES = [
    inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name,
    models_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
]


class CannotStartError(Exception):
    """A port, a folder or a cluster is not ours to use; the message is all that a person needs."""


def main() -> int:
    """Returns the exit status: 0 after a drained stop, 2 with one line on stderr if it cannot start."""
    try:
        settings = read(GatewaySettings, program="gateway")
        logs.configure(service="gateway", level=settings.log_level)
        uvloop.run(serve(settings))
    except CannotStartError as error:
        return _refuse(str(error))
    return 0


async def serve(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT, then drains. Raises CannotStartError."""
    if settings.pools and settings.staged_by != "pool":
        raise CannotStartError("CONCH_POOLS needs CONCH_STAGED_BY=pool: pools stage for themselves")
    stopped = asyncio.create_task(server.stop_signal())
    try:
        gateway = await Gateway.start(settings)
    except OSError as error:
        raise CannotStartError(error.strerror or str(error)) from error
    except NotReady as error:
        raise CannotStartError(error.message) from error
    # What stands after the start stands for good; looking through it again and again cost 3% of a call.
    gc.freeze()
    await stopped
    await gateway.drain()


@dataclass(frozen=True)
class Gateway:
    """The running parts, in one place for the end."""

    settings: GatewaySettings
    server: server.Server
    routing: Routing
    places: Places
    readiness: Readiness
    exposition: Exposition

    @classmethod
    async def start(cls, settings: GatewaySettings) -> "Gateway":
        """Wires and starts the parts. Raises OSError if a port is taken, NotReady if there is no cluster."""
        places = Places.of(settings)
        metrics = Metrics()
        exposition = Exposition(metrics.registry, settings.metrics_address)
        ours = server.build(
            _SERVICES, max_message_bytes=settings.max_message_bytes, observe=metrics.rpc_ended
        )
        served = serving(settings, health=ours.health, metrics=metrics)
        routing = Routing(
            served,
            places.routes,
            places.ledger,
            pools=settings.pools,
            readonly=settings.routes_readonly,
            resumes=settings.staged_by == "pool",
        )
        inference = inference_servicer(
            Answering(served, settings, metrics), Streaming(served, settings, metrics)
        )
        models = ModelServicer(routing, repository_uri=settings.resolved_repository_uri())
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(inference, ours.grpc)
        models_pb2_grpc.add_ModelServiceServicer_to_server(models, ours.grpc)
        metrics.watch_routes(lambda: routing.problem, lambda: routing.ledger.num_unwritten)
        readiness = Readiness(served, ours.health)
        await ours.start(settings.gateway_address, is_ready=False)
        log.info("metrics.exposed", port=exposition.port)
        await routing.start()
        readiness.start(routing.known.wait)
        return cls(settings, ours, routing, places, readiness, exposition)

    async def drain(self) -> None:
        """Turns health off first, lets calls under way end, then closes everything."""
        self.readiness.close()
        await self.server.health.enter_graceful_shutdown()
        await asyncio.sleep(self.settings.drain_delay_seconds)
        await self.server.drain(self.settings.drain_seconds)
        await self.routing.close()
        await self.places.close()
        self.exposition.close()


def _refuse(reason: str) -> int:
    print(f"gateway: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
