"""The arguments of Triton's pods are options of the real tritonserver, and those of `conch up` for pods."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from services.triton import launcher
from services.triton.environment import Environment
from services.triton.settings import TritonSettings
from tests.chart import charts

HOME = charts.ROOT / os.environ.get("CONCH_HOME", ".conch")
TRITON = Environment(HOME / "triton")
ELSEWHERE = {"http-address", "grpc-address", "metrics-address", "allow-http", "allow-metrics"} | {
    # A pod has room of its own, and one Triton in it.
    "backend-directory",
    "cache-directory",
    "pinned-memory-pool-byte-size",
    "log-verbose",
}
"""Options of the embedded Triton that are about sharing one machine, or about where its wheel put things."""


@pytest.fixture(scope="module")
def known() -> set[str]:
    """The options that the real tritonserver names in its help."""
    environment = launcher.process_environment(TRITON, os.environ)
    done = subprocess.run(
        [TRITON.server, "--help"], env=environment, capture_output=True, text=True, check=False
    )
    return set(re.findall(r"--([a-z0-9-]+)", done.stdout + done.stderr))


@pytest.mark.parametrize("pool", "abcde")
def test_tritonserver_knows_every_argument(pool: str, known: set[str]) -> None:
    assert set(_arguments(pool)) <= known


def test_a_pod_starts_triton_as_one_machine_does_for_pods() -> None:
    settings = TritonSettings(home=HOME, triton_control="none", runtime="openvino")
    command = launcher.command(settings, backends=Path("backends"))
    ours = dict(argument.removeprefix("--").split("=", 1) for argument in command[1:])
    pod = _arguments("b")
    assert set(ours) - ELSEWHERE == set(pod)
    same = set(pod) - {"model-repository", "exit-timeout-secs", "http-port", "grpc-port", "metrics-port"}
    assert {name: ours[name] for name in same} == {name: pod[name] for name in same}


def _arguments(pool: str) -> dict[str, str]:
    found = charts.find(charts.objects(name="every-runtime"), "Deployment", f"conch-triton-{pool}")
    (triton,) = [c for c in found["spec"]["template"]["spec"]["containers"] if c["name"] == "triton"]
    return dict(argument.removeprefix("--").split("=", 1) for argument in triton["args"])
