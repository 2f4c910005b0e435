"""Routes as values: what makes them valid, how they are put in order, and who wrote them when.

Knows conch.v1.Routes as JSON; knows nothing about where they are kept, or about what is published.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from google.protobuf import json_format

from conch.v1 import models_pb2
from services.errors import InvalidRequest, Violation
from services.repository import layout

MAX_WEIGHT = 1_000_000


@dataclass(frozen=True)
class Signed:
    """One change of the routes that its author left beside them, for whoever keeps the ledger."""

    change: models_pb2.RouteChange
    mark: int
    """Above the number of the revision that it replaced, not above its own."""


@dataclass(frozen=True)
class Revision:
    """The routes as somebody wrote them."""

    routes: models_pb2.Routes
    actor: str
    """Who wrote what is not `signed`, as far as it is known."""
    reason: str = ""
    number: int = 0
    """Grows with every change of the same `place`; 0 where nobody counts."""
    place: str = ""
    """What `number` counts in: another place, another count."""
    signed: tuple[Signed, ...] = ()
    """The newest changes that were asked for one by one, oldest first; the ledger may have them already."""

    def author_of(self, model: str) -> str:
        """Returns who wrote a model's route."""
        route = next((r for r in self.routes.routes if r.model == model), None)
        signed = [s.change for s in self.signed if s.change.after == route]
        return signed[-1].actor if signed else self.actor


def parse(text: str) -> models_pb2.Routes:
    """Returns the routes of a JSON text, sorted. Raises InvalidRequest naming each bad field."""
    try:
        routes = json_format.Parse(text, models_pb2.Routes())
    except json_format.ParseError as error:
        raise InvalidRequest.field(
            "routes", f"is no conch.v1.Routes: {error}", reason="INVALID_ROUTES"
        ) from error
    problems = [p for i, route in enumerate(routes.routes) for p in _problems(route, f"routes[{i}]")]
    problems += _repeated([route.model for route in routes.routes], "routes", "model")
    if problems:
        raise InvalidRequest(*problems, reason="INVALID_ROUTES")
    return sort(routes)


def text(routes: models_pb2.Routes) -> str:
    """Returns the JSON text of routes, in order, as people read it."""
    return json_format.MessageToJson(sort(routes), indent=2) + "\n"


def check(route: models_pb2.Route, *, field: str) -> None:
    """Raises InvalidRequest naming each bad field below `field`."""
    problems = _problems(route, field)
    if problems:
        raise InvalidRequest(*problems, reason="INVALID_ROUTE")


def check_pool(route: models_pb2.Route, pools: Collection[str], *, field: str) -> None:
    """Raises InvalidRequest unless the route's pool is one of `pools`; no pools = one without a name."""
    if route.pool in (pools or ("",)):
        return
    known = ", ".join(sorted(pools))
    words = f"known: {known}" if known else "here is one pool, and it has no name"
    wrong = f"no pool {route.pool[:80]!r}" if route.pool else f"{route.model} needs a pool"
    raise InvalidRequest.field(f"{field}.pool", f"{wrong}; {words}", reason="UNKNOWN_POOL")


def check_model_name(name: str, *, field: str) -> None:
    """Raises InvalidRequest naming `field` unless `name` could be the name of a model."""
    if not layout.is_model_name(name):
        raise InvalidRequest(_bad_name(name, field))


def sort(routes: models_pb2.Routes) -> models_pb2.Routes:
    """Returns the same routes by model, their versions by number."""
    return models_pb2.Routes(routes=[in_order(r) for r in sorted(routes.routes, key=lambda r: r.model)])


def in_order(route: models_pb2.Route) -> models_pb2.Route:
    """Returns the same route with its versions by number."""
    made = models_pb2.Route()
    made.CopyFrom(route)
    del made.versions[:]
    made.versions.extend(sorted(route.versions, key=lambda v: v.version))
    return made


def replace(routes: models_pb2.Routes, route: models_pb2.Route) -> models_pb2.Routes:
    """Returns the routes with one model's route put in the place of its old one."""
    others = [r for r in routes.routes if r.model != route.model]
    return sort(models_pb2.Routes(routes=[*others, route]))


def _problems(route: models_pb2.Route, field: str) -> list[Violation]:
    problems = []
    if not layout.is_model_name(route.model):
        problems.append(_bad_name(route.model, f"{field}.model"))
    for i, version in enumerate(route.versions):
        problems += _version_problems(version, f"{field}.versions[{i}]")
    problems += _repeated([v.version for v in route.versions], f"{field}.versions", "version")
    if not any(v.weight for v in route.versions):
        problems.append(
            Violation(f"{field}.versions", "no version has a weight above 0: nobody would answer")
        )
    if route.shadow and any(v.version == route.shadow and v.weight for v in route.versions):
        words = f"version {route.shadow} answers callers already: a shadow is one that does not"
        problems.append(Violation(f"{field}.shadow", words))
    return problems


def _bad_name(name: str, field: str) -> Violation:
    return Violation(field, f"{name[:80]!r} is no model's name: letters, digits, '.', '_' and '-'")


def _version_problems(version: models_pb2.WeightedVersion, field: str) -> list[Violation]:
    problems = []
    if version.version < 1:
        problems.append(Violation(f"{field}.version", "versions count from 1"))
    if version.weight > MAX_WEIGHT:
        problems.append(Violation(f"{field}.weight", f"{version.weight} is more than {MAX_WEIGHT}"))
    return problems


def _repeated(values: Sequence[object], field: str, noun: str) -> list[Violation]:
    seen = sorted({str(value) for value in values if values.count(value) > 1})
    return [Violation(field, f"{noun} {value} occurs more than once") for value in seen]
