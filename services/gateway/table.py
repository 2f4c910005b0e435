"""The table of who answers: routes that hold, what is known of each version, the pick, the health names.

Knows states only; knows nothing about how a version comes to serve. Belongs to one event loop.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

import structlog
from grpc_health.v1 import health, health_pb2

from conch.v1 import inference_pb2, models_pb2
from services.errors import BackendUnavailable, NotFound, NotReady, ServiceError
from services.gateway.crew import NoServer
from services.gateway.routes import Shares
from services.gateway.served import ServedVersion

log = structlog.get_logger(__name__)

Key = tuple[str, int]
State: TypeAlias = models_pb2.Version.State.ValueType
LOADING = models_pb2.Version.STATE_LOADING
SERVING = models_pb2.Version.STATE_SERVING
FAILED = models_pb2.Version.STATE_FAILED
SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
_RETRY_SECONDS = 1.0


def named(key: Key) -> str:
    """Returns how a version is written: sentiment@3."""
    return f"{key[0]}@{key[1]}"


def keys_of(route: models_pb2.Route) -> list[Key]:
    """Returns the versions that a route names, its shadow last."""
    numbers = dict.fromkeys([*(v.version for v in route.versions), *filter(None, [route.shadow])])
    return [(route.model, number) for number in numbers]


def about(key: Key, error: ServiceError) -> ServiceError:
    """Returns why a version does not serve, with the version in the sentence."""
    message = error.message if named(key) in error.message else f"{named(key)}: {error.message}"
    if error.retryable:
        return BackendUnavailable(message, reason=error.reason, metadata=error.metadata)
    kind = NotFound if isinstance(error, NotFound) else NotReady
    return kind(message, reason=error.reason, metadata=error.metadata)


@dataclass(eq=False)
class Entry:
    """What is known of one version; `served` is set while it can answer, or calls may wait for it.

    `awaited` is the pool whose next server calls may wait for, None if waiting would not help.
    """

    state: State = LOADING
    reason: str = ""
    awaited: str | None = None
    served: ServedVersion | None = None
    is_idle: bool = False
    """Whether its pool has no server at all, so that it cannot come up before somebody calls."""
    retiring: asyncio.Task[None] | None = None
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class _Held:
    route: models_pb2.Route
    shares: Shares
    numbers: frozenset[int]

    @property
    def kept(self) -> frozenset[int]:
        """The versions that answer, and the one that only gets copies."""
        return self.numbers | ({self.route.shadow} if self.route.shadow else set())


@dataclass(eq=False)
class Table:
    """Held routes and known versions. `on_fallback(model, version)` hears of shares that went elsewhere.

    `on_states` hears of all versions' states whenever they may have changed.
    """

    health: health.aio.HealthServicer
    chance: random.Random
    on_fallback: Callable[[str, int], None]
    on_states: Callable[[Mapping[Key, State]], None] = lambda states: None
    entries: dict[Key, Entry] = field(default_factory=dict)
    _held: dict[str, _Held] = field(default_factory=dict)
    _published: dict[str, bool] = field(default_factory=dict)
    _publishing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def pick(self, model: str, version: int) -> ServedVersion:
        """Returns who answers a call; `version` 0 = the route's weights decide.

        Raises NotFound with the known names, BackendUnavailable while nobody can answer, NoServer if
        somebody soon may.
        """
        held = self._held.get(model)
        if held is None:
            known = ", ".join(sorted(self._held)) or "none"
            raise NotFound(
                f"no model {model[:80]!r} is routed here; routed: {known}", reason="MODEL_NOT_FOUND"
            )
        if version and version not in held.numbers:
            known = ", ".join(map(str, sorted(held.numbers)))
            raise NotFound(
                f"version {version} is not part of the route of {model}; routed: {known}",
                reason="VERSION_NOT_FOUND",
            )
        number = version or held.shares.draw(self.chance)
        entry = self.entries[model, number]
        if entry.state == SERVING and entry.served:
            return entry.served
        return self._refuse([(model, version)]) if version else self._fall_back(held, number)

    def shadow(self, model: str, answered: int) -> ServedVersion | None:
        """Returns who gets a copy of a call that version `answered` has a share of, None if nobody."""
        held = self._held.get(model)
        if held is None or not held.route.shadow or answered not in held.shares.versions:
            return None
        entry = self.entries.get((model, held.route.shadow))
        return entry.served if entry and entry.state == SERVING else None

    def route(self, model: str) -> models_pb2.Route | None:
        """Returns the route that holds, None if the model is not routed."""
        held = self._held.get(model)
        return held.route if held else None

    def routes(self) -> models_pb2.Routes:
        """Returns all routes that hold, by model."""
        return models_pb2.Routes(routes=[self._held[model].route for model in sorted(self._held)])

    def state(self, key: Key) -> tuple[State, str]:
        """Returns a version's state and, if it failed, why."""
        entry = self.entries.get(key)
        if entry is None or entry.retiring:
            return models_pb2.Version.STATE_PUBLISHED, ""
        return entry.state, entry.reason

    def hold(self, route: models_pb2.Route) -> None:
        """Sends a model's calls along `route` from now on; versions not known yet are LOADING."""
        held = _Held(route, Shares(route.versions), frozenset(v.version for v in route.versions))
        for number in held.kept:
            self.entries.setdefault((route.model, number), Entry())
        self._held[route.model] = held

    def drop(self, model: str) -> None:
        """Forgets the route of a model."""
        self._held.pop(model, None)

    def is_held(self, key: Key) -> bool:
        """Returns whether a version is part of a route."""
        return key[0] in self._held and key[1] in self._held[key[0]].kept

    def keys(self, *states: State, held: bool | None = None) -> list[Key]:
        """Returns the versions in one of `states`, only those that are part of a route or only the others."""
        return sorted(
            key
            for key, entry in self.entries.items()
            if entry.state in states and held in (None, self.is_held(key))
        )

    def failed(self, *, older_than_seconds: float) -> list[Key]:
        """Returns the routed versions that failed that long ago."""
        before = time.monotonic() - older_than_seconds
        return [key for key in self.keys(FAILED, held=True) if self.entries[key].since <= before]

    def settled(self) -> bool:
        """Returns whether every version with a share answers, failed, or has a pool without servers."""
        entries = [self.entries[model, n] for model, held in self._held.items() for n in held.shares.versions]
        return all(entry.state in (SERVING, FAILED) or entry.is_idle for entry in entries)

    def served(self) -> list[Key]:
        """Returns the versions that Triton holds for us, drained ones included."""
        return sorted(key for key, entry in self.entries.items() if entry.served)

    async def publish(self) -> None:
        """Brings grpc.health.v1 up to the table: a name for each version, one for each model."""
        async with self._publishing:
            await self._publish()

    async def _publish(self) -> None:
        shown = [key for key, entry in self.entries.items() if entry.served or self.is_held(key)]
        self.on_states({key: self.entries[key].state for key in shown})
        answers = {f"{SERVICE}/{named(key)}": self._answers(key) for key in self.entries}
        for model, held in self._held.items():
            answers[f"{SERVICE}/{model}"] = all(self._answers((model, n)) for n in held.shares.versions)
        for name in self._published.keys() - answers.keys():
            answers[name] = False
        for name, answer in answers.items():
            if self._published.get(name) != answer:
                status = health_pb2.HealthCheckResponse
                await self.health.set(name, status.SERVING if answer else status.NOT_SERVING)
        self._published = answers

    def _answers(self, key: Key) -> bool:
        return self.entries[key].state == SERVING and self.is_held(key)

    def _fall_back(self, held: _Held, number: int) -> ServedVersion:
        model = held.route.model
        rest = [v for v in held.route.versions if v.weight and self._answers((model, v.version))]
        if not rest:
            self._refuse([(model, n) for n in held.shares.versions])
        self.on_fallback(model, number)
        served = self.entries[model, Shares(rest).draw(self.chance)].served
        assert served is not None
        return served

    def _refuse(self, keys: list[Key]) -> NoReturn:
        reasons = [self.entries[k].reason for k in keys if self.entries[k].state == FAILED]
        if len(reasons) == len(keys):
            raise BackendUnavailable("; ".join(reasons), reason="VERSION_FAILED", retry_seconds=30.0)
        for key in keys:
            if (pool := self.entries[key].awaited) is not None:
                where = f"no server of pool {pool}" if pool else "no server"
                raise NoServer(f"{where} has {named(key)} yet", pool=pool)
        loading = ", ".join(named(k) for k in keys if self.entries[k].state != FAILED)
        raise BackendUnavailable(
            f"{loading} is being loaded", reason="VERSION_LOADING", retry_seconds=_RETRY_SECONDS
        )
