"""State file, lock and ports: what one `conch up` can rely on about another."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli import ports, session, state
from services.cli.failures import CliError
from services.cli.settings import CliSettings, read
from services.cli.state import ChildState, ProcessRef, UpState


def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])


def dead() -> ProcessRef:
    return ProcessRef(os.getpid(), 1.0)


def up(supervisor: ProcessRef, *children: ChildState) -> UpState:
    return UpState(
        supervisor, "ready", "onnxruntime", "asked for", {"trainer_address": "h:1"}, list(children)
    )


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    me = ProcessRef.of(os.getpid())
    written = up(me, ChildState("a", "healthy", "a.log", 2, me), ChildState("b", "stopped", "b.log"))
    state.write(tmp_path, written)
    assert state.read(tmp_path) == written
    assert written.alive()


def test_a_damaged_state_file_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "up.json").write_text("{")
    assert state.read(tmp_path) is None


def test_a_pid_that_is_used_again_is_another_process() -> None:
    assert dead().find() is None


def test_the_lock_is_held_once_and_ends_with_its_holder(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from services.cli.state import claim"
    code += "; print(bool(claim(Path(sys.argv[1]))))"

    def claim_elsewhere() -> str:
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    lock = state.claim(tmp_path)
    assert lock
    assert claim_elsewhere() == "False\n"
    lock.close()
    assert claim_elsewhere() == "True\n"


def test_orphans_of_a_dead_supervisor_are_stopped_in_reverse(tmp_path: Path) -> None:
    first, second = sleeper(), sleeper()
    children = [
        ChildState(n, "healthy", "", 0, ProcessRef.of(p.pid)) for n, p in (("a", first), ("b", second))
    ]
    state.write(tmp_path, up(dead(), *children, ChildState("c", "healthy", "", 0, dead())))
    assert session.stop_orphans(tmp_path) == ["b", "a"]
    assert first.wait(10) is not None
    assert second.wait(10) is not None
    assert state.read(tmp_path) is None


def test_children_of_a_living_supervisor_are_no_orphans(tmp_path: Path) -> None:
    state.write(tmp_path, up(ProcessRef.of(os.getpid())))
    assert session.stop_orphans(tmp_path) == []
    assert "are up already by pid" in session.already_up(tmp_path)


def test_taken_ports_are_all_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        first, second = (f"127.0.0.1:{s.getsockname()[1]}" for s in (one, two))
        listeners = {"gateway": first, "free": "127.0.0.1:0", "trainer": second}
        with pytest.raises(CliError) as caught:
            ports.require_free(listeners)
    assert f"{first} (gateway)" in caught.value.message
    assert f"{second} (trainer)" in caught.value.message
    assert "--port-offset" in caught.value.message
    ports.require_free(listeners)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:", "127.0.0.1:70000"])
def test_an_address_without_a_port_is_refused(address: str) -> None:
    with pytest.raises(CliError, match="no host:port"):
        ports.is_free(address)


def test_settings_follow_the_last_up_unless_the_environment_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCH_HOME", str(tmp_path))
    monkeypatch.setenv("CONCH_GATEWAY_ADDRESS", "127.0.0.1:7")
    chosen = CliSettings().shifted(100)
    assert chosen.triton_http_port == 8100
    state.write(tmp_path, UpState(dead(), "ready", "onnxruntime", "", chosen.addresses()))
    assert read().trainer_address == "127.0.0.1:50152"
    assert read().gateway_address == "127.0.0.1:7"
