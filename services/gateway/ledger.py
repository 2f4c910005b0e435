"""The ledger: which versions were routed when, by whom and why; one conch.v1.RouteChange a line.

Knows one append-only file on a local disk; knows nothing about what routes do.
"""

import os
from pathlib import Path

import structlog
from google.protobuf import json_format

from conch.v1 import models_pb2
from services.errors import NotReady

log = structlog.get_logger(__name__)


class Ledger:
    """An append-only file whose sequence numbers run from 1 without gap; held in memory, too."""

    def __init__(self, path: Path) -> None:
        """Reads what is there. A last line torn by a crash was never answered for: it is cut off."""
        self._path = path.absolute()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._changes = self._read_and_repair()

    def append(self, change: models_pb2.RouteChange) -> models_pb2.RouteChange:
        """Writes one line, on disk when this returns; fills in `sequence` and `time`.

        Raises NotReady(DISK_FULL); the file then ends as it did before.
        """
        change.sequence = self._changes[-1].sequence + 1 if self._changes else 1
        change.time.GetCurrentTime()
        line = json_format.MessageToJson(change, indent=None) + "\n"
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            self._write(line.encode())
        except OSError as error:
            os.truncate(self._path, size)
            raise NotReady(f"cannot write {self._path}: {error.strerror}", reason="DISK_FULL") from error
        self._changes.append(change)
        return change

    def last(self, model: str) -> models_pb2.Route | None:
        """Returns the route that the newest line of `model` says holds, None if it has no line."""
        for change in reversed(self._changes):
            if change.after.model == model:
                return change.after
        return None

    def models(self) -> set[str]:
        """Returns every model that has a line."""
        return {change.after.model for change in self._changes}

    def page(
        self, *, model: str, size: int, below: int | None
    ) -> tuple[list[models_pb2.RouteChange], int | None]:
        """Returns up to `size` changes, newest first, of one model ("" = all), older than sequence `below`.

        Beside them stands the `below` of the next page, None if there is none.
        """
        found = [
            change
            for change in reversed(self._changes)
            if model in ("", change.after.model) and (below is None or change.sequence < below)
        ]
        more = len(found) > size
        return found[:size], found[size - 1].sequence if more else None

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
        return [
            change for number, line in enumerate(whole.splitlines(), 1) if (change := _parse(line, number))
        ]


def _parse(line: bytes, number: int) -> models_pb2.RouteChange | None:
    try:
        return json_format.Parse(line, models_pb2.RouteChange())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        # Only a hand can do this. Serving goes on: the ledger is a record, not a source.
        log.error("ledger.damaged", line=number, error=str(error))
        return None
