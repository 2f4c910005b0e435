"""Gateways of real parts that follow one ConfigMap of an emulated API server, each with its own Triton."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf import json_format

from conch.v1 import models_pb2
from services import routes as values
from tests.cluster.api_server import ApiServer
from tests.contract.fake_triton import running
from tests.contract.gateway.stack import SERVING, Stack, gateway
from tests.contract.versions import publish

ROUTES, LEDGER = "conch-routes", "conch-ledger"


def release(
    api: ApiServer, *routes: models_pb2.Route, text: str | None = None, **annotations: str
) -> dict[str, Any]:
    """Writes the ConfigMap of the routes as `helm upgrade` does: its own keys and annotations, no others."""
    said = {f"conch/{name}": words for name, words in annotations.items()}
    data = {"routes.json": values.text(models_pb2.Routes(routes=routes)) if text is None else text}
    if not api.objects.all("ConfigMap", fields=f"metadata.name={ROUTES}"):
        metadata = {"name": ROUTES, "annotations": said}
        return api.objects.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        )

    def edit(obj: dict[str, Any]) -> None:
        obj["metadata"].setdefault("annotations", {}).update(said)
        obj["data"] = data

    return api.objects.change("ConfigMap", ROUTES, edit)


def written(api: ApiServer) -> models_pb2.Routes:
    """Returns the routes in the ConfigMap."""
    return values.parse(api.objects.get("ConfigMap", ROUTES)["data"]["routes.json"])


def lines(api: ApiServer) -> list[models_pb2.RouteChange]:
    """Returns the lines of the ledger, oldest first; none while there is no ledger."""
    found = api.objects.all("ConfigMap", fields=f"metadata.name={LEDGER}")
    text = found[0]["data"]["ledger.jsonl"] if found else ""
    return [json_format.Parse(line, models_pb2.RouteChange()) for line in text.splitlines()]


async def until(api: ApiServer, ready: Callable[[], bool]) -> None:
    """Waits for the cluster's objects to be so."""
    await asyncio.to_thread(api.objects.wait_for, ready)


async def until_problem(stack: Stack, words: str) -> models_pb2.GetRoutesResponse:
    """Returns what GetRoutes says once its problem holds `words`, or, without words, once there is none."""
    async with asyncio.timeout(20):
        while True:
            answer = await stack.models.GetRoutes(models_pb2.GetRoutesRequest())
            if words in answer.problem and bool(words) == bool(answer.problem):
                return answer
            await asyncio.sleep(0.02)


async def history(stack: Stack) -> list[models_pb2.RouteChange]:
    """Returns the ledger as a gateway tells it, oldest first."""
    answer = await stack.models.ListRouteChanges(models_pb2.ListRouteChangesRequest(page_size=1000))
    return list(reversed(answer.changes))


async def shifted(stacks: list[Stack], version: int, model: str = "sentiment") -> None:
    """Waits until every gateway serves a version and sends calls to it."""
    await asyncio.gather(*(stack.until_health(f"{model}@{version}", SERVING) for stack in stacks))
    for stack in stacks:
        assert (await stack.classify(model)).version == version


@asynccontextmanager
async def gateways(
    home: Path, count: int = 2, *, versions: int = 2, **more: Any
) -> AsyncIterator[list[Stack]]:
    """Yields gateways over repositories that hold versions 1, 2, ... of "sentiment"."""
    if count == 0:
        yield []
        return
    mine = home / f"gateway-{count}"
    for version in range(1, versions + 1):
        publish(mine / "repository", version)
    settings = {"routes_configmap": ROUTES, "ledger_configmap": LEDGER} | more
    async with (
        running(repository=mine / "staged") as triton,
        gateways(home, count - 1, versions=versions, **more) as others,
        gateway(mine, triton.address, grace_seconds=0.5, **settings) as stack,
    ):
        yield [stack, *others]


def mount(home: Path, *routes: models_pb2.Route) -> Path:
    """Returns the file that a kubelet mounts of the ConfigMap."""
    path = home / "mounted" / "routes.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(values.text(models_pb2.Routes(routes=routes)))
    return path


async def until_held(stacks: list[Stack], wanted: models_pb2.Route) -> None:
    """Waits until a route holds at every gateway."""
    async with asyncio.timeout(30):
        while True:
            if all(stack.serving.route(wanted.model) == wanted for stack in stacks):
                return
            await asyncio.sleep(0.001)


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """Returns code and message of the error that a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    raise AssertionError("the call was not refused")
