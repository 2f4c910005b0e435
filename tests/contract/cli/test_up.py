"""`conch status` of a set that is up, as the state file and the services tell it."""

import os
import subprocess
import sys
from pathlib import Path

from services.cli import state
from services.cli.state import ChildState, ProcessRef, UpState
from tests.contract.cli.conftest import Conch


def test_status_shows_processes_and_served_versions(conch: Conch, tmp_path: Path) -> None:
    me = ProcessRef.of(os.getpid())
    children = [ChildState("gateway", "healthy", "gateway.log", 1, me)]
    up = UpState(me, "ready", "openvino", "2.1x onnxruntime here", {"metrics_address": "h:1"}, children)
    state.write(tmp_path / "home", up)
    conch("route", "sentiment", "3")
    ran = conch("status", "--json")
    (status,) = ran.lines
    assert ran.code == 1, "the gateway here answers no health check"
    assert (status["runtime"], status["addresses"]) == ("openvino", {"metricsAddress": "h:1"})
    assert status["processes"][0] | {"started": 0} == {
        "name": "gateway",
        "phase": "healthy",
        "healthy": False,
        "pid": os.getpid(),
        "started": 0,
        "restarts": 1,
        "log": "gateway.log",
    }
    assert status["versions"][0]["state"] == "STATE_SERVING"
    assert "not answering" in conch("status").stdout


def test_up_refuses_while_one_is_up(conch: Conch, tmp_path: Path) -> None:
    lock = state.claim(tmp_path / "home")
    assert lock
    with lock:
        ran = conch("up", "--detach")
    assert ran.code == 4
    assert "are up already" in ran.stderr


def test_down_stops_what_a_dead_supervisor_left(conch: Conch, tmp_path: Path) -> None:
    orphan = subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
    children = [ChildState("trainer", "healthy", "", 0, ProcessRef.of(orphan.pid))]
    state.write(tmp_path / "home", UpState(ProcessRef(os.getpid(), 1.0), "ready", "", "", {}, children))
    assert conch("down", "--json").lines == [{"stopped": ["trainer"]}]
    assert orphan.wait(10) is not None
