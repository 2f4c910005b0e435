import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from services.gateway.discovery import resolve


def answering(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Lets DNS say `answer`, or raises it."""

    async def getaddrinfo(host: str, port: str, **_: Any) -> list[Any]:
        if isinstance(answer, Exception):
            raise answer
        return [(family, socket.SOCK_STREAM, 6, "", place) for family, *place in answer]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)


async def test_a_literal_address_is_one_server_and_several_are_several() -> None:
    assert await resolve("10.0.0.1:8001") == {"10.0.0.1:8001"}
    assert await resolve("[::1]:8001") == {"[::1]:8001"}
    assert await resolve("10.0.0.1:8001, 10.0.0.2:9001") == {"10.0.0.1:8001", "10.0.0.2:9001"}


async def test_a_name_with_several_addresses_is_as_many_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, [(socket.AF_INET, "10.0.0.1", 8001), (socket.AF_INET, "10.0.0.2", 8001)])
    assert await resolve("triton-cpu:8001") == {"10.0.0.1:8001", "10.0.0.2:8001"}


async def test_pods_with_addresses_of_two_families_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, [(socket.AF_INET6, "fd00::1", 8001, 0, 0), (socket.AF_INET, "10.0.0.1", 8001)])
    assert await resolve("triton-cpu:8001") == {"10.0.0.1:8001"}
    answering(monkeypatch, [(socket.AF_INET6, "fd00::1", 8001, 0, 0)])
    assert await resolve("triton-cpu:8001") == {"[fd00::1]:8001"}


async def test_a_service_without_pods_has_no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    assert await resolve("triton-cpu:8001") == frozenset()


async def test_a_name_server_that_does_not_answer_says_nothing_about_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answering(monkeypatch, socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
    with pytest.raises(OSError, match="Temporary failure"):
        await resolve("triton-cpu:8001")


async def test_a_file_names_a_server_a_line(tmp_path: Path) -> None:
    file = tmp_path / "servers"
    file.write_text("# of the rehearsal\n127.0.0.1:1\n\n127.0.0.1:2\n")
    assert await resolve(f"file://{file}") == {"127.0.0.1:1", "127.0.0.1:2"}
    file.unlink()
    with pytest.raises(FileNotFoundError):
        await resolve(f"file://{file}")
