"""Opens the jobs database, brings its tables up to date and hands out transactions.

Knows what differs between SQLite and PostgreSQL; knows nothing about what the tables mean. What the
driver raises becomes BackendUnavailable here; no message ever holds the password.
"""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from services.errors import BackendUnavailable

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_SECONDS = 30
# A server whose machine is gone says nothing: without these a call waits for it for a quarter of an hour.
_CONNECT: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# Any number, as long as nothing else in the same PostgreSQL database locks by it.
_EXCLUSIVE_KEY = 0x636F6E6368


class Database:
    """A connection pool; `migrate()` comes before the first transaction. Blocking: call it in threads."""

    def __init__(self, url: str) -> None:
        """Connects to nothing yet. Raises BackendUnavailable if `url` is none that we can use."""
        self._engine = _open(url)
        self._writing = self._engine.execution_options(writes=True)
        self.address = self._engine.url.set(query={}).render_as_string(hide_password=True)

    @property
    def is_postgresql(self) -> bool:
        """True for PostgreSQL, False for SQLite."""
        return self._engine.dialect.name == "postgresql"

    @property
    def path(self) -> str:
        """Where an SQLite database lies."""
        return self._engine.url.database or ":memory:"

    def connect_arguments(self) -> dict[str, Any]:
        """Returns what the driver's own `connect` takes, password included, for a connection apart."""
        _, arguments = self._engine.dialect.create_connect_args(self._engine.url)
        return {**_CONNECT, **arguments}

    def migrate(self) -> None:
        """Brings the tables up to date; safe when two services do so at once. Raises BackendUnavailable."""
        with self._translated(), self._writing.connect() as connection:
            _enter_wal_mode(connection)
            with connection.begin():
                _lock_all(connection)
                _upgrade(connection)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads: a consistent picture. Raises BackendUnavailable."""
        with self._translated(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write; objects stay usable after it. Raises BackendUnavailable."""
        with self._translated(), Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def write_alone(self) -> Iterator[Session]:
        """As `write`, with no other `write_alone` beside it, in any process. Raises BackendUnavailable."""
        with self.write() as session:
            _lock_all(session.connection())
            yield session

    def close(self) -> None:
        """Closes the pooled connections."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (DataError, IntegrityError, ProgrammingError):
            raise  # a bug of ours, not an absent database
        except (DatabaseError, InterfaceError, PoolTimeout) as error:
            raise BackendUnavailable(
                f"the jobs database {self.address} did not answer: {self._cause(error)}",
                reason="DATABASE_UNAVAILABLE",
            ) from error
        except CommandError as error:
            raise BackendUnavailable(
                f"the jobs database {self.address} was made by another release of Conch: {error}",
                reason="DATABASE_INCOMPATIBLE",
            ) from error

    def _cause(self, error: SQLAlchemyError) -> str:
        lines = str(getattr(error, "orig", error)).strip().splitlines()
        password = self._engine.url.password
        first = lines[0] if lines else type(error).__name__
        return first.replace(str(password), "***") if password else first


def _open(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "sqlite":
            return _open_sqlite(parsed.render_as_string(hide_password=False))
        return create_engine(parsed, pool_pre_ping=True, connect_args=_CONNECT, hide_parameters=True)
    except (ArgumentError, ImportError, ValueError) as error:
        # Not parsed, so its password cannot be hidden: the URL stays out of the message.
        raise BackendUnavailable(
            "the database URL is none that Conch can use; expected sqlite:///PATH or postgresql://HOST/NAME",
            reason="DATABASE_URL_INVALID",
        ) from error


def _open_sqlite(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS}, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Otherwise the driver begins transactions by its own rules: late, and never for DDL.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")
    # A job acknowledged is a job on disk, power cut included.
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that upgrades from reading to writing midway can fail at once, busy timeout or not.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _enter_wal_mode(connection: Connection) -> None:
    path = connection.engine.url.database
    if connection.dialect.name != "sqlite" or not path:
        return
    # SQLite fails at once, busy timeout or not, where two processes change the mode of a new file.
    with open(f"{path}.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            connection.connection.cursor().execute("PRAGMA journal_mode=WAL")
        except sqlite3.Error as error:
            raise OperationalError("PRAGMA journal_mode=WAL", None, error) from error


def _lock_all(connection: Connection) -> None:
    # SQLite's BEGIN IMMEDIATE has done so already.
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _EXCLUSIVE_KEY})


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
