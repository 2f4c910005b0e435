"""Holds replicas of a service over one database together: one leads, and all hear of changes.

Knows locks and how news travels, in PostgreSQL and in SQLite; knows nothing about what a leader does. A
leader that dies lets go of its lock by that alone.
"""

import asyncio
import fcntl
import os
import sqlite3
import zlib
from contextlib import closing
from typing import Protocol

import psycopg
import structlog

from services.errors import BackendUnavailable
from services.jobs.announcing import CHANNEL, parse
from services.jobs.changes import Changes
from services.jobs.database import Database
from services.jobs.leading import Leading

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 1.0
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 3.0
# Half of the key, the other half is the kind: any number, as long as nothing else locks by it.
_LOCK = 0x636F6E63
# The server has to notice by itself that a machine is gone or a leader frozen: as long as it believes in
# the connection nobody else can lead. A server before PostgreSQL 14 does not know the last one.
_SESSION = (
    "SET tcp_keepalives_idle = 3",
    "SET tcp_keepalives_interval = 2",
    "SET tcp_keepalives_count = 2",
    "SET idle_session_timeout = '10s'",
)


class Replicas(Protocol):
    """What this replica shares with the others."""

    async def run(self) -> None:
        """Begins to lead when nobody else does, and passes on what others changed; until cancelled."""


def join(database: Database, kind: str, changes: Changes, leading: Leading) -> Replicas:
    """Returns what holds the replicas over this database together."""
    if database.is_postgresql:
        return _OverPostgres(database, kind, changes, leading)
    return _OverSqlite(database, kind, changes, leading)


class _OverPostgres:
    """One connection of its own: whoever holds it holds the lock, hears the news and knows that it lives."""

    def __init__(self, database: Database, kind: str, changes: Changes, leading: Leading) -> None:
        self._database = database
        self._kind = kind
        self._changes = changes
        self._leading = leading

    async def run(self) -> None:
        while True:
            try:
                await self._stay_connected()
            except (psycopg.Error, OSError, BackendUnavailable) as error:
                log.warning("replicas.missed", problem=str(error).strip(), retry_seconds=_LOOK_SECONDS)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _stay_connected(self) -> None:
        connection = await asyncio.wait_for(self._connect(), _CONNECT_SECONDS)
        try:
            # Whatever happened while nobody listened.
            self._changes.ring_all()
            while True:
                await asyncio.wait_for(self._seek_lead(connection), _ANSWER_SECONDS)
                async for news in connection.notifies(timeout=_LOOK_SECONDS):
                    self._hear(news.payload)
        finally:
            # First of all: who leads on a connection that is no more would have company soon.
            await self._leading.end()
            await connection.close()

    async def _connect(self) -> "psycopg.AsyncConnection[tuple[object, ...]]":
        arguments = self._database.connect_arguments()
        arguments["application_name"] = f"conch-{self._kind}"
        connection = await psycopg.AsyncConnection.connect(**arguments, autocommit=True)
        for statement in _SESSION:
            try:
                await connection.execute(statement.encode())
            except psycopg.errors.UndefinedObject:
                log.warning("replicas.degraded", statement=statement)
        await connection.execute(f"LISTEN {CHANNEL}")
        return connection

    async def _seek_lead(self, connection: "psycopg.AsyncConnection[tuple[object, ...]]") -> None:
        """Asks for the lock, or, if it is ours, whether the connection that holds it still lives."""
        if self._leading.leads:
            await connection.execute("SELECT 1")
            return
        lock = (_LOCK, zlib.crc32(self._kind.encode()) & 0x7FFFFFFF)
        answer = await connection.execute("SELECT pg_try_advisory_lock(%s::int, %s::int)", lock)
        if (row := await answer.fetchone()) and row[0]:
            self._leading.begin()

    def _hear(self, payload: str) -> None:
        news = parse(payload)
        if news is None or news.kind != self._kind:
            return
        self._changes.ring(news.job_id)
        if news.wished:
            self._changes.wish()


class _OverSqlite:
    """A lock file beside the database, and a look at its version every second."""

    def __init__(self, database: Database, kind: str, changes: Changes, leading: Leading) -> None:
        self._path = database.path
        self._kind = kind
        self._changes = changes
        self._leading = leading

    async def run(self) -> None:
        lock = os.open(f"{self._path}.{self._kind}.leader", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # It must not wait: that would hold the event loop up.
            with closing(sqlite3.connect(self._path, timeout=0)) as connection:
                await self._look(lock, connection)
        finally:
            await self._leading.end()
            os.close(lock)

    async def _look(self, lock: int, connection: sqlite3.Connection) -> None:
        seen = _version(connection)
        while True:
            if not self._leading.leads and _locked(lock):
                self._leading.begin()
            if (version := _version(connection)) != seen:
                seen = version
                self._changes.ring_all()
            await asyncio.sleep(_LOOK_SECONDS)


def _version(connection: sqlite3.Connection) -> int | None:
    """Returns a number that changes with every change that others make: a look into shared memory.

    None if it cannot be looked at now, which is a change too.
    """
    try:
        return int(connection.execute("PRAGMA data_version").fetchone()[0])
    except sqlite3.Error as error:
        log.warning("replicas.missed", problem=str(error), retry_seconds=_LOOK_SECONDS)
        return None


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
