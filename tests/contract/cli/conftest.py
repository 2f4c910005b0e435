"""The command line, run in this process against scripted services."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.cli.__main__ import main
from tests.contract.cli.fakes import FakeServices

ADDRESSES = ("GATEWAY", "TRAINER", "CONVERTER")


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """stdout as JSON lines; raises if anything else stands there."""
        return [json.loads(line) for line in self.stdout.splitlines()]


Conch = Callable[..., Ran]


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeServices]:
    fake = FakeServices()
    monkeypatch.setenv("CONCH_HOME", str(tmp_path / "home"))
    for name in ADDRESSES:
        monkeypatch.setenv(f"CONCH_{name}_ADDRESS", fake.address)
    yield fake
    fake.close()


@pytest.fixture
def conch(services: FakeServices, capsys: pytest.CaptureFixture[str]) -> Conch:
    """Runs `conch ARGUMENTS`."""

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run
