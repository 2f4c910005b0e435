"""One `conch up` over tiny programs: what the other verbs read of it, how it ends."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.cli import session, state
from services.cli.failures import CliError
from services.cli.runtimes import Choice
from services.cli.session import Session
from services.cli.settings import CliSettings
from services.cli.state import UpState
from services.cli.supervisor import Program

_SLEEPER = "import signal; signal.pause()"
CHOICE = Choice("openvino", "2.1x onnxruntime here")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliSettings:
    monkeypatch.setenv("CONCH_HOME", str(tmp_path))
    return CliSettings()


def program(settings: CliSettings, name: str, code: str = _SLEEPER) -> Program:
    async def is_healthy() -> bool:
        return True

    command = [sys.executable, "-S", "-c", code]
    return Program(name, command, settings.resolved_home() / f"{name}.log", is_healthy)


def interrupting(seen: list[UpState], settings: CliSettings) -> Callable[[UpState], None]:
    """Returns an `on_ready` that keeps what stands on disk and then asks for the end."""

    def on_ready(_: UpState) -> None:
        on_disk = state.read(settings.resolved_home())
        assert on_disk
        seen.append(on_disk)
        os.kill(os.getpid(), signal.SIGTERM)

    return on_ready


async def test_a_session_tells_its_state_and_removes_it_at_the_end(settings: CliSettings) -> None:
    seen: list[UpState] = []
    programs = [program(settings, "a"), program(settings, "b")]
    await Session(settings, CHOICE, programs).run(interrupting(seen, settings))
    (ready,) = seen
    assert (ready.phase, ready.runtime, ready.supervisor.pid) == ("ready", "openvino", os.getpid())
    assert [(child.name, child.phase) for child in ready.children] == [("a", "healthy"), ("b", "healthy")]
    assert all(child.process and child.process.find() is None for child in ready.children), "all are gone"
    assert state.read(settings.resolved_home()) is None


async def test_a_session_is_ready_only_once_routed_versions_are_settled(settings: CliSettings) -> None:
    answers = [False, False, True]
    await Session(settings, CHOICE, [program(settings, "a")], lambda: answers.pop(0)).run(
        interrupting([], settings)
    )
    assert answers == []


async def test_a_program_that_does_not_start_ends_the_session_and_the_others(settings: CliSettings) -> None:
    async def never() -> bool:
        return False

    dies = Program(
        "b", [sys.executable, "-S", "-c", "raise SystemExit('no')"], settings.resolved_home() / "b.log", never
    )
    with pytest.raises(CliError, match="b did not start: no"):
        await Session(settings, CHOICE, [program(settings, "a"), dies]).run(lambda _: None)
    assert state.read(settings.resolved_home()) is None


def test_a_second_up_is_refused_while_the_lock_is_held(settings: CliSettings) -> None:
    lock = state.claim(settings.resolved_home())
    assert lock
    with lock, pytest.raises(CliError, match="are up already"):
        session.run(settings, lambda: CHOICE, lambda _: None)


def test_taken_ports_are_told_before_anything_starts(settings: CliSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = settings.model_copy(update={"gateway_address": f"127.0.0.1:{server.getsockname()[1]}"})
        with pytest.raises(CliError, match=r"taken: .*\(gateway\)"):
            session.run(taken, lambda: CHOICE, lambda _: None)
    assert not list(settings.resolved_home().glob("logs/*"))
