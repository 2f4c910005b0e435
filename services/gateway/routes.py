"""The routes file, and the draw by weight.

Knows a file on a local disk that a person or SetRoute writes; knows nothing about Triton.
"""

import itertools
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from watchfiles import Change, awatch

from conch.v1 import models_pb2
from services import routes as values
from services import stores
from services.errors import InvalidRequest, NotReady
from services.routes import Revision, Signed

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
    """A keeping.RoutesSource: a file, written whole or not at all, read anew when anyone changed it."""

    problem = ""
    """A file always answers."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def exists(self) -> bool:
        """Returns whether there is a file."""
        return self.path.is_file()

    def read(self) -> Revision:
        """Returns what is in the file. Raises InvalidRequest that says what is wrong with it."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest.field(
                self.path.name, f"cannot be read: {error}", reason="INVALID_ROUTES"
            ) from error
        return Revision(values.parse(text), actor="file")

    @asynccontextmanager
    async def writing(
        self, change: models_pb2.RouteChange, *, held: models_pb2.Routes
    ) -> AsyncIterator[Revision]:
        """Writes one model's route into the file, and takes it back if the block fails.

        A broken file is replaced by the routes that hold. Raises NotReady(DISK_FULL).
        """
        before = self._routes_or(held)
        routes = values.replace(before, change.after)
        self.write(routes)
        try:
            yield Revision(routes, actor="file", signed=(Signed(change, mark=0),))
        except BaseException:
            self.write(before)
            raise

    def write(self, routes: models_pb2.Routes) -> None:
        """Replaces the file as a whole: a reader or a crash sees old or new. Raises NotReady(DISK_FULL)."""
        try:
            with stores.whole(self.path) as partial:
                partial.write_text(values.text(routes), encoding="utf-8")
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

    def _routes_or(self, held: models_pb2.Routes) -> models_pb2.Routes:
        try:
            return self.read().routes
        except InvalidRequest:
            return held

    def _bytes(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except OSError:
            return None


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
