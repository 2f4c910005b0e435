"""A real PostgreSQL server of our own, in a temporary folder, gone after the session."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

PASSWORD = "an-open-sesame"
_USER = "conch"
_MISSING = "PostgreSQL's server programs are not installed; run: apt-get install -y postgresql"


class Postgres:
    """A running server; `stop` and `start` it as you like."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = _free_port()

    def create(self) -> None:
        """Makes the cluster: one superuser, password asked for."""
        password = self._folder / "password"
        password.write_text(PASSWORD)
        _run("initdb", "-D", self._data, "-U", _USER, "--auth=scram-sha-256", f"--pwfile={password}", "-N")

    def start(self) -> None:
        # What a power cut would lose is not what is tested here.
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        _run("pg_ctl", "-D", self._data, "-l", str(self._folder / "server.log"), "-w", "-o", options, "start")

    def stop(self) -> None:
        _run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def new_database(self) -> str:
        """Returns the URL, with password, of a new empty database."""
        name = f"conch_{secrets.token_hex(4)}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql://{_USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    @property
    def _data(self) -> str:
        return str(self._folder / "data")


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Gives a running server. Fails, with the line to type, where PostgreSQL is not installed."""
    # Not below pytest's own folders: those may be entered by their owner alone.
    folder = Path(tempfile.mkdtemp(prefix="conch-postgres-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    server = Postgres(folder)
    server.create()
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def _run(program: str, *arguments: str) -> None:
    # PostgreSQL refuses to run as root.
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    # Not captured through a pipe: the server would inherit it and we would wait for its end.
    with tempfile.TemporaryFile() as output:
        command = [*prefix, _find(program), *arguments]
        done = subprocess.run(command, stdout=output, stderr=output, check=False, cwd="/")
        output.seek(0)
        assert done.returncode == 0, f"{program}: {output.read().decode()}"


def _find(program: str) -> str:
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), reverse=True)
    found = shutil.which(program) or (str(versions[0]) if versions else None)
    assert found is not None, _MISSING
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
