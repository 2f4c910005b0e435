"""`python -m services.gateway`: reads the settings, wires the parts, serves until SIGTERM, drains."""

import asyncio
import sys

import structlog
import uvloop
from pydantic import ValidationError

from conch.v1 import inference_pb2, inference_pb2_grpc, models_pb2, models_pb2_grpc
from services import logs, server
from services.gateway.answering import Answering
from services.gateway.ledger import Ledger
from services.gateway.metrics import Exposition, Metrics
from services.gateway.model_servicer import ModelServicer
from services.gateway.routes import RoutesFile
from services.gateway.routing import Routing
from services.gateway.servicer import InferenceServicer
from services.gateway.serving import Serving
from services.gateway.settings import GatewaySettings
from services.gateway.triton import Triton

log = structlog.get_logger(__name__)

_SERVICES = [
    inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name,
    models_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
]


def main() -> int:
    """Returns the exit status: 0 after a drained stop, 2 with one line on stderr if it cannot start."""
    try:
        settings = GatewaySettings()
        logs.configure(service="gateway", level=settings.log_level)
        uvloop.run(serve(settings))
    except (OSError, ValidationError) as error:
        print(f"gateway: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


async def serve(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT, then drains: health goes off first, calls under way may end."""
    stopped = asyncio.create_task(server.stop_signal())
    metrics = Metrics()
    exposition = Exposition(metrics, settings.metrics_address)
    ours = server.build(_SERVICES, max_message_bytes=settings.max_message_bytes, observe=metrics.rpc_ended)
    triton = Triton(settings.triton_address)
    serving = Serving(settings, triton, health=ours.health, metrics=metrics)
    routing = Routing(
        serving,
        RoutesFile(settings.resolved_routes()),
        Ledger(settings.resolved_ledger()),
        readonly=settings.routes_readonly,
    )
    inference = InferenceServicer(Answering(serving, settings, metrics))
    models = ModelServicer(routing, repository_uri=settings.resolved_repository_uri())
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(inference, ours.grpc)
    models_pb2_grpc.add_ModelServiceServicer_to_server(models, ours.grpc)
    await ours.start(settings.gateway_address)
    log.info("metrics.exposed", port=exposition.port)
    await routing.start()
    await stopped
    await ours.health.enter_graceful_shutdown()
    await asyncio.sleep(settings.drain_delay_seconds)
    await ours.drain(settings.drain_seconds)
    await routing.close()
    await triton.close()
    exposition.close()


def _one_line(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error.strerror if isinstance(error, OSError) and error.strerror else error)
    return "; ".join(f"CONCH_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())


if __name__ == "__main__":
    sys.exit(main())
