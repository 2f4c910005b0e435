"""Routes: the file that says which versions answer, what makes it valid, and the draw by weight.

Knows conch.v1.Routes as JSON on a local disk; knows nothing about Triton or about what is published.
"""

import itertools
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

from google.protobuf import json_format
from watchfiles import Change, awatch

from conch.v1 import models_pb2
from services import stores
from services.errors import InvalidRequest, NotReady, Violation
from services.repository import layout

MAX_WEIGHT = 1_000_000
_LOOK_MILLISECONDS = 500


class Shares:
    """Draws versions by weight; deterministic for a given `random`."""

    def __init__(self, versions: Iterable[models_pb2.WeightedVersion]) -> None:
        weighted = [v for v in versions if v.weight]
        self.versions: tuple[int, ...] = tuple(v.version for v in weighted)
        self._up_to = list(itertools.accumulate(v.weight for v in weighted))

    def draw(self, chance: random.Random) -> int:
        """Returns one of `versions`, each as often as its weight says. There must be one."""
        if len(self.versions) == 1:
            return self.versions[0]
        return chance.choices(self.versions, cum_weights=self._up_to)[0]


class RoutesFile:
    """The routes file. Written whole or not at all; read anew when anyone changed it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def exists(self) -> bool:
        """Returns whether there is a file."""
        return self.path.is_file()

    def read(self) -> models_pb2.Routes:
        """Returns the routes in the file, sorted. Raises InvalidRequest that says what is wrong with it."""
        try:
            return parse(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest.field(
                self.path.name, f"cannot be read: {error}", reason="INVALID_ROUTES"
            ) from error

    def write(self, routes: models_pb2.Routes) -> None:
        """Replaces the file as a whole: a reader or a crash sees old or new. Raises NotReady(DISK_FULL)."""
        text = json_format.MessageToJson(sort(routes), indent=2) + "\n"
        try:
            with stores.whole(self.path) as partial:
                partial.write_text(text, encoding="utf-8")
        except OSError as error:
            raise NotReady(f"cannot write {self.path}: {error.strerror}", reason="DISK_FULL") from error

    async def looks(self) -> AsyncIterator[bool]:
        """Yields at once, then at each change in the file's folder, and every half second all the same.

        True says that the file's bytes are others than at the look before. The regular look sees what
        was edited before the watch began, and edits on file systems that notify nobody.
        """
        before: bytes | None = b""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        async for _ in _ticks(self.path):
            now = self._bytes()
            yield now != before
            before = now

    def _bytes(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except OSError:
            return None


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


def check(route: models_pb2.Route, *, field: str) -> None:
    """Raises InvalidRequest naming each bad field below `field`."""
    problems = _problems(route, field)
    if problems:
        raise InvalidRequest(*problems, reason="INVALID_ROUTE")


def check_model_name(name: str, *, field: str) -> None:
    """Raises InvalidRequest naming `field` unless `name` could be the name of a model."""
    if not layout.is_model_name(name):
        raise InvalidRequest(_bad_name(name, field))


def sort(routes: models_pb2.Routes) -> models_pb2.Routes:
    """Returns the same routes by model, their versions by number."""
    return models_pb2.Routes(
        routes=[
            models_pb2.Route(model=r.model, versions=sorted(r.versions, key=lambda v: v.version))
            for r in sorted(routes.routes, key=lambda r: r.model)
        ]
    )


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


async def _ticks(path: Path) -> AsyncIterator[None]:
    # A ConfigMap changes by a swap of the link ..data beside the file, never by a write to the file.
    def ours(_: Change, changed: str) -> bool:
        return Path(changed).name in (path.name, "..data")

    yield
    async for _ in awatch(
        path.parent,
        watch_filter=ours,
        recursive=False,
        debounce=200,
        rust_timeout=_LOOK_MILLISECONDS,
        yield_on_timeout=True,
    ):
        yield
