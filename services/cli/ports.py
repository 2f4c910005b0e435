"""Which ports are free, and who holds those that are not. Binds for a moment; never listens."""

import errno
import socket
from collections.abc import Mapping
from typing import Any

import psutil

from services.cli.failures import USAGE, CliError


def require_free(listeners: Mapping[str, str]) -> None:
    """Raises CliError that names every taken port of `listeners` (name -> host:port), and who holds it."""
    taken = [
        f"{address} ({name}){holder(address)}" for name, address in listeners.items() if not is_free(address)
    ]
    if taken:
        raise CliError(
            f"taken: {', '.join(taken)}; stop what holds it, or move all: conch up --port-offset 100",
            exit_code=USAGE,
        )


def is_free(address: str) -> bool:
    """Returns True if host:port can be listened on now; 0 always can. Raises CliError for a bad address."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise CliError(f"{address!r} is no host:port with a port up to 65535", exit_code=USAGE)
    if int(port) == 0:
        return True
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are still closing down is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            return _refused(address, error)
    return True


def holder(address: str) -> str:
    """Returns " by pid 12 (name)" of the process that listens there, empty if that cannot be seen."""
    port = int(address.rpartition(":")[2])
    try:
        pids = [c.pid for c in psutil.net_connections("tcp") if _listens(c, port) and c.pid]
        return f" by pid {pids[0]} ({psutil.Process(pids[0]).name()})" if pids else ""
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return ""


def _listens(connection: Any, port: int) -> bool:
    return bool(connection.status == psutil.CONN_LISTEN and connection.laddr.port == port)


def _refused(address: str, error: OSError) -> bool:
    if error.errno == errno.EADDRINUSE:
        return False
    raise CliError(f"cannot listen on {address}: {error.strerror}", exit_code=USAGE) from None
