"""The ledger of a cluster: one ConfigMap that all gateways write, a line a change, whoever is first.

Knows conflicts and retries; knows nothing about what routes do. Written in the background: a ledger that
cannot be written holds nothing up.
"""

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from conch.v1 import models_pb2
from services import changes
from services.changes import Recorded
from services.cluster.books import Book, book_of, content_of, recorded_in
from services.cluster.client import Cluster
from services.cluster.objects import CONFIG_MAPS
from services.cluster.refusals import CHANGED
from services.cluster.watching import stopped
from services.errors import AlreadyExists, BackendUnavailable, NotFound, NotReady, ServiceError
from services.routes import Revision

log = structlog.get_logger(__name__)

# Gateways that all see the same release come one after the other: the first writes, the others find it.
_SPREAD_SECONDS = 2.0
_TRIES = 20
_LONGEST_PAUSE_SECONDS = 0.2
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
# How long SetRoute waits for the number of its line, and a gateway that ends for its last lines.
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class _Note:
    revision: Revision
    held: tuple[models_pb2.Route, ...]
    time: Timestamp


class LedgerConfigMap:
    """A gateway.keeping.Ledger. `close` it in the loop that it was started in."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self._name = name
        self._notes: deque[_Note] = deque()
        self._noted: _Note | None = None
        self._woken, self._hurried, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[NoReturn] | None = None

    async def start(self) -> None:
        """Begins to write what is noted."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Waits a little for what was noted to be written."""
        await self._settle()
        if self._task:
            await stopped(self._task)
        if self._notes:
            log.error("ledger.unwritten", revisions=[note.revision.number for note in self._notes])

    @property
    def num_unwritten(self) -> int:
        """Revisions that were noted and are not written yet."""
        return len(self._notes)

    async def note(self, revision: Revision, held: Iterable[models_pb2.Route]) -> None:
        """Takes what a revision changed into the ledger by and by; never waits and never fails."""
        now = Timestamp()
        now.GetCurrentTime()
        note = _Note(revision, tuple(held), now)
        # What the mounted file said has no number; the API server says it again.
        if not revision.number or (self._noted and _same(note, self._noted)):
            return
        self._noted = note
        self._notes.append(note)
        self._idle.clear()
        self._woken.set()
        if any(signed.mark == revision.number for signed in revision.signed):
            self._hurried.set()

    async def newest(self) -> Mapping[str, models_pb2.Route]:
        """Returns what held of each model when the newest lines were written. Raises BackendUnavailable."""
        return (await self._read()).recorded.routes

    async def entry(self, asked: models_pb2.RouteChange) -> models_pb2.RouteChange:
        """Returns the line of a change that was noted; `asked`, without number, if it is not written yet."""
        await self._settle()
        try:
            book = await self._read()
        except ServiceError as error:
            log.warning("ledger.unread", error=error.message)
            return asked
        return changes.find(changes.parse(book.lines), asked) or asked

    async def page(
        self, *, model: str, size: int, below: int | None
    ) -> tuple[list[models_pb2.RouteChange], int | None]:
        """Returns a page of the ledger as changes.page does. Raises BackendUnavailable."""
        return changes.page(changes.parse((await self._read()).lines), model=model, size=size, below=below)

    async def _settle(self) -> None:
        self._hurried.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), _ANSWER_SECONDS)

    async def _run(self) -> NoReturn:
        backoff = 0.0
        while True:
            await self._woken.wait()
            await self._pause(backoff or random.uniform(0, _SPREAD_SECONDS))
            if await self._write_safely(self._notes[0]):
                backoff = 0.0
                self._notes.popleft()
            else:
                backoff = min(_LONGEST_BACKOFF_SECONDS, 2 * backoff or _FIRST_BACKOFF_SECONDS)
            if not self._notes:
                self._woken.clear()
                self._hurried.clear()
                self._idle.set()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurried.wait(), seconds)

    async def _write_safely(self, note: _Note) -> bool:
        """Returns whether all was done that can be done for `note`."""
        try:
            await self._write(note)
        except ServiceError as error:
            log.error("ledger.unwritten", revision=note.revision.number, error=error.message)
            self._hurried.clear()
            return False
        except Exception:
            # A bug must not end the writing: no later change would ever be recorded.
            log.exception("ledger.crashed", revision=note.revision.number)
        return True

    async def _write(self, note: _Note) -> None:
        for _ in range(_TRIES):
            if not await self._lacks(note):
                return
            book = await self._read()
            lines, recorded = book.recorded.missing(note.revision, note.held, note.time)
            if recorded == book.recorded:
                return
            try:
                await self._store(book, lines, recorded)
            except (AlreadyExists, NotFound, NotReady) as error:
                if isinstance(error, NotReady) and error.reason != CHANGED:
                    raise
                # Another gateway was faster, or the answer to our own write was lost.
                await asyncio.sleep(random.uniform(0, _LONGEST_PAUSE_SECONDS))
            else:
                for change in lines:
                    log.info("ledger.written", line=changes.line(change).rstrip())
                return
        raise BackendUnavailable(f"others change ConfigMap {self._name} all the time", reason="CONTENDED")

    async def _lacks(self, note: _Note) -> bool:
        """Returns whether anything may be missing, from as much as every gateway can ask for each time."""
        try:
            metadata = await self._cluster.metadata(CONFIG_MAPS, self._name)
        except NotFound:
            return True
        recorded = recorded_in(metadata)
        return recorded is None or recorded.missing(note.revision, note.held, note.time)[1] != recorded

    async def _read(self) -> Book:
        try:
            return book_of(await self._cluster.get(CONFIG_MAPS, self._name))
        except NotFound:
            return Book("", (), Recorded())

    async def _store(self, book: Book, lines: Sequence[models_pb2.RouteChange], recorded: Recorded) -> None:
        content = content_of(book, lines, recorded)
        if book.version:
            content["metadata"]["resourceVersion"] = book.version
            await self._cluster.patch(CONFIG_MAPS, self._name, content)
        else:
            content["metadata"] |= {"name": self._name, "labels": {"app.kubernetes.io/managed-by": "conch"}}
            await self._cluster.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", **content})


def _same(one: _Note, other: _Note) -> bool:
    return (one.revision.place, one.revision.number, one.held) == (
        other.revision.place,
        other.revision.number,
        other.held,
    )
