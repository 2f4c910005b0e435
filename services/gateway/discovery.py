"""Which servers a pool's address means now: names resolved anew, literals as they stand, a file of lines.

Knows addresses only; knows nothing about Triton. Where there is no DNS, "file:///path" with one host:port
a line stands for it.
"""

import asyncio
import ipaddress
import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit

_NOBODY = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


async def resolve(address: str) -> frozenset[str]:
    """Returns the host:port of each server that `address` means; none if its name has no addresses.

    `address` is one host:port, several with commas between, or "file:///path". Raises OSError if that
    cannot be found out now, which says nothing about the servers.
    """
    if address.startswith("file://"):
        return await asyncio.to_thread(_read, Path(unquote(urlsplit(address).path)))
    found = await asyncio.gather(*(_resolve_one(part.strip()) for part in address.split(",") if part.strip()))
    return frozenset().union(*found)


def _read(path: Path) -> frozenset[str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return frozenset(line for line in lines if line and not line.startswith("#"))


async def _resolve_one(address: str) -> frozenset[str]:
    host, _, port = address.rpartition(":")
    if _is_literal(host):
        return frozenset({address})
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NOBODY:
            return frozenset()
        raise
    # A pod of two address families is one server, not two.
    family = min(family for family, *_ in found)
    return frozenset(_joined(place[0], place[1]) for kind, _, _, _, place in found if kind == family)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _joined(host: object, port: object) -> str:
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
