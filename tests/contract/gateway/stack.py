"""A gateway of real parts on a free port, wired as `__main__` does, for tests that need its insides."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conch.v1 import inference_pb2, inference_pb2_grpc, models_pb2, models_pb2_grpc
from services import server
from services.gateway.answering import Answering
from services.gateway.metrics import Metrics
from services.gateway.model_servicer import ModelServicer
from services.gateway.places import Places
from services.gateway.readiness import Readiness
from services.gateway.routing import Routing
from services.gateway.servicer import inference_servicer
from services.gateway.serving import Serving, serving
from services.gateway.settings import GatewaySettings
from services.gateway.streaming import Streaming

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Stack:
    """A running gateway: its stubs, and its parts for those who must look inside."""

    models: Any
    inference: Any
    health: Any
    serving: Serving
    routing: Routing
    metrics: Metrics
    home: Path
    channel: grpc.aio.Channel
    """Accepts answers and sends requests of any size."""

    @property
    def routes_file(self) -> Path:
        return self.home / "routes.json"

    async def set_route(self, route: models_pb2.Route, **words: str) -> models_pb2.RouteChange:
        request = models_pb2.SetRouteRequest(route=route, **words)
        return (await self.models.SetRoute(request, timeout=60)).change

    async def classify(self, model: str = "sentiment", version: int = 0) -> inference_pb2.ServedBy:
        request = inference_pb2.ClassifyRequest(model=model, version=version, texts=["a fine film"])
        return (await self.inference.Classify(request, timeout=20)).served_by

    async def check(self, name: str) -> Any:
        request = health_pb2.HealthCheckRequest(service=f"conch.v1.InferenceService/{name}")
        return (await self.health.Check(request)).status

    async def until_health(self, name: str, status: Any, *, seconds: float = 20) -> None:
        """Waits for the health service itself to tell; "" is the gateway as a whole."""
        service = f"conch.v1.InferenceService/{name}" if name else ""
        request = health_pb2.HealthCheckRequest(service=service)
        async with asyncio.timeout(seconds):
            async for answer in self.health.Watch(request):
                if answer.status == status:
                    return


@asynccontextmanager
async def gateway(
    home: Path,
    triton_address: str,
    *,
    grace_seconds: float = 0.0,
    chance: random.Random | None = None,
    **more: Any,
) -> AsyncIterator[Stack]:
    """Yields a gateway over `home`/repository, with `home`/staged, routes and ledger."""
    settings = GatewaySettings(
        home=home,
        repository_uri=str(home / "repository"),
        triton_address=triton_address,
        warm_seconds=0,
        **more,
    )
    metrics = Metrics()
    ours = server.build([], max_message_bytes=settings.max_message_bytes, observe=metrics.rpc_ended)
    served = serving(
        settings, health=ours.health, metrics=metrics, chance=chance, grace_seconds=grace_seconds
    )
    places = Places.of(settings)
    routing = Routing(
        served,
        places.routes,
        places.ledger,
        pools=settings.pools,
        readonly=settings.routes_readonly,
        resumes=settings.staged_by == "pool",
    )
    models = ModelServicer(routing, repository_uri=settings.resolved_repository_uri())
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(
        inference_servicer(Answering(served, settings, metrics), Streaming(served, settings, metrics)),
        ours.grpc,
    )
    models_pb2_grpc.add_ModelServiceServicer_to_server(models, ours.grpc)
    metrics.watch_routes(lambda: routing.problem, lambda: routing.ledger.num_unwritten)
    readiness = Readiness(served, ours.health)
    port = await ours.start("127.0.0.1:0", is_ready=False)
    await routing.start()
    readiness.start(routing.known.wait)
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=unlimited) as channel:
        yield Stack(
            models_pb2_grpc.ModelServiceStub(channel),
            inference_pb2_grpc.InferenceServiceStub(channel),
            health_pb2_grpc.HealthStub(channel),
            served,
            routing,
            metrics,
            home,
            channel,
        )
    readiness.close()
    await ours.drain(1.0)
    await routing.close()
    await places.close()
