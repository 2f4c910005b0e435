"""conch.v1.ModelService: the model repository, the routes and the ledger as callers see them.

Knows messages and pages; knows nothing about how versions come to serve.
"""

import asyncio
import base64
import binascii
from typing import Any

from conch.v1 import models_pb2, models_pb2_grpc
from services.errors import InvalidRequest, NotFound, NotReady
from services.gateway.routing import Routing
from services.repository import versions
from services.routes import check_model_name

_DEFAULT_PAGE_SIZE = 50
_MAX_PAGE_SIZE = 1000


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """Thin: reads the repository in threads, and asks `routing` for the rest."""

    def __init__(self, routing: Routing, *, repository_uri: str) -> None:
        self._routing = routing
        self._repository_uri = repository_uri

    async def ListModels(
        self, request: models_pb2.ListModelsRequest, context: Any
    ) -> models_pb2.ListModelsResponse:
        size, after = _page_size(request.page_size), _read_token(request.page_token, "model")
        names = await asyncio.to_thread(versions.list_models, self._repository_uri)
        left = sorted(name for name in names if name > after)
        page = [await self._model(name) for name in left[:size]]
        token = _token("model", left[size - 1]) if len(left) > size else ""
        return models_pb2.ListModelsResponse(models=page, next_page_token=token)

    async def GetModel(
        self, request: models_pb2.GetModelRequest, context: Any
    ) -> models_pb2.GetModelResponse:
        check_model_name(request.name, field="name")
        model = await self._model(request.name)
        if not model.versions:
            raise NotFound(f"no model {request.name!r} in the repository", reason="MODEL_NOT_FOUND")
        return models_pb2.GetModelResponse(model=model)

    async def GetVersion(
        self, request: models_pb2.GetVersionRequest, context: Any
    ) -> models_pb2.GetVersionResponse:
        check_model_name(request.model, field="model")
        if not request.version:
            raise InvalidRequest.field("version", "versions count from 1")
        version = await self._read(request.model, request.version)
        version.state, version.state_reason = self._routing.serving.state((request.model, request.version))
        return models_pb2.GetVersionResponse(version=version)

    async def GetRoutes(
        self, request: models_pb2.GetRoutesRequest, context: Any
    ) -> models_pb2.GetRoutesResponse:
        routes = self._routing.serving.routes()
        return models_pb2.GetRoutesResponse(routes=routes, problem=self._routing.problem)

    async def SetRoute(
        self, request: models_pb2.SetRouteRequest, context: Any
    ) -> models_pb2.SetRouteResponse:
        _check_words(request)
        actor = request.actor or "unknown"
        change = await self._routing.set_route(request.route, actor=actor, reason=request.reason)
        return models_pb2.SetRouteResponse(change=change)

    async def ListRouteChanges(
        self, request: models_pb2.ListRouteChangesRequest, context: Any
    ) -> models_pb2.ListRouteChangesResponse:
        size, below = _page_size(request.page_size), _read_number(request.page_token, "change")
        changes, next_below = await self._routing.ledger.page(model=request.model, size=size, below=below)
        token = _token("change", str(next_below)) if next_below else ""
        return models_pb2.ListRouteChangesResponse(changes=changes, next_page_token=token)

    async def _model(self, name: str) -> models_pb2.Model:
        numbers = await asyncio.to_thread(versions.list_versions, self._repository_uri, name)
        task = await self._task(name, numbers[-1]) if numbers else ""
        return models_pb2.Model(
            name=name, task=task, versions=reversed(numbers), route=self._routing.serving.route(name)
        )

    async def _task(self, name: str, number: int) -> str:
        try:
            return (await self._read(name, number)).manifest.checkpoint.task
        except NotReady:
            return ""  # a damaged version must not hide the model

    async def _read(self, model: str, number: int) -> models_pb2.Version:
        return await asyncio.to_thread(versions.read_version, self._repository_uri, model, number)


def _check_words(request: models_pb2.SetRouteRequest) -> None:
    for field, words, longest in (("actor", request.actor, 256), ("reason", request.reason, 4096)):
        if len(words) > longest:
            raise InvalidRequest.field(field, f"has {len(words)} characters, more than {longest}")


def _page_size(asked: int) -> int:
    if asked > _MAX_PAGE_SIZE:
        raise InvalidRequest.field("page_size", f"{asked} is more than {_MAX_PAGE_SIZE}")
    return asked or _DEFAULT_PAGE_SIZE


def _token(kind: str, place: str) -> str:
    return base64.urlsafe_b64encode(f"{kind}:{place}".encode()).decode()


def _read_token(token: str, kind: str) -> str:
    """Returns the place that a page token names, "" for the first page. Raises InvalidRequest."""
    if not token:
        return ""
    try:
        found, _, place = base64.b64decode(token, altchars=b"-_", validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        found, place = "", ""
    if found != kind or not place:
        raise InvalidRequest.field(
            "page_token", "is none that this rpc gave out", reason="INVALID_PAGE_TOKEN"
        )
    return place


def _read_number(token: str, kind: str) -> int | None:
    place = _read_token(token, kind)
    if place and not place.isdecimal():
        raise InvalidRequest.field(
            "page_token", "is none that this rpc gave out", reason="INVALID_PAGE_TOKEN"
        )
    return int(place) if place else None
