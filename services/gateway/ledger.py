"""The ledger of one machine: which versions were routed when, by whom and why; a line a change.

Knows one append-only file on a local disk; knows nothing about what routes do.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from conch.v1 import models_pb2
from services import changes
from services.errors import NotReady
from services.routes import Revision

log = structlog.get_logger(__name__)


class LedgerFile:
    """A keeping.Ledger: an append-only file whose numbers run from 1 without gap; held in memory, too."""

    def __init__(self, path: Path) -> None:
        """Reads what is there. A last line torn by a crash was never answered for: it is cut off."""
        self._path = path.absolute()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._changes = self._read_and_repair()
        self._recorded = changes.Recorded.of(self._changes)

    async def start(self) -> None:
        """Does nothing: the file is there."""

    async def close(self) -> None:
        """Does nothing: every line is on disk."""

    @property
    def num_unwritten(self) -> int:
        """None: what cannot be written is not taken."""
        return 0

    async def note(self, revision: Revision, held: Iterable[models_pb2.Route]) -> None:
        """Writes the lines that `revision` still lacks, on disk when this returns; never waits.

        Raises NotReady(DISK_FULL); the file then ends as it did before.
        """
        now = Timestamp()
        now.GetCurrentTime()
        lines, recorded = self._recorded.missing(revision, held, now)
        if lines:
            self._append("".join(map(changes.line, lines)).encode())
        self._changes += lines
        self._recorded = recorded

    async def newest(self) -> Mapping[str, models_pb2.Route]:
        """Returns what held of each model when the newest lines were written."""
        return self._recorded.routes

    async def entry(self, asked: models_pb2.RouteChange) -> models_pb2.RouteChange:
        """Returns the line of a change that was noted."""
        return changes.find(self._changes, asked) or asked

    async def page(
        self, *, model: str, size: int, below: int | None
    ) -> tuple[list[models_pb2.RouteChange], int | None]:
        """Returns a page of the ledger as changes.page does."""
        return changes.page(self._changes, model=model, size=size, below=below)

    def _append(self, data: bytes) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            self._write(data)
        except OSError as error:
            if self._path.exists():
                os.truncate(self._path, size)
            raise NotReady(f"cannot write {self._path}: {error.strerror}", reason="DISK_FULL") from error

    def _write(self, data: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _read_and_repair(self) -> list[models_pb2.RouteChange]:
        if not self._path.exists():
            return []
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            log.warning("ledger.repaired", path=str(self._path), cut_bytes=len(data) - len(whole))
            os.truncate(self._path, len(whole))
        return changes.parse(whole.splitlines())
