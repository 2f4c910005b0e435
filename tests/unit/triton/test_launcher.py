"""The command line and the folders that Triton is started with."""

import subprocess
import sys
from pathlib import Path

import pytest

from services.errors import NotReady
from services.triton import launcher
from services.triton.environment import Environment
from services.triton.settings import TritonSettings


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """The part of Triton's environment that the launcher looks at."""
    made = Environment(tmp_path / "env")
    made.python_backend.mkdir(parents=True)
    made.server.parent.mkdir(parents=True)
    made.server.touch()
    return made


def test_the_backend_directory_holds_tritons_and_ours(environment: Environment, tmp_path: Path) -> None:
    for _ in range(2):
        folder = launcher.prepare_backends(tmp_path / "backends", environment)
    assert (folder / "python").resolve() == environment.python_backend
    for runtime in ("onnxruntime", "openvino"):
        names = {path.name for path in (folder / runtime).iterdir()}
        assert names == {"model.py", "execution.py", "configuration.py"}
        assert (folder / runtime / "model.py").read_text().startswith(f'"""Triton\'s `{runtime}` backend')


def test_without_an_environment_the_line_to_type_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"python -m services\.triton\.install"):
        launcher.prepare_backends(tmp_path / "backends", Environment(tmp_path / "none"))


def test_the_runtime_chooses_the_configuration_that_triton_reads(tmp_path: Path) -> None:
    default = launcher.command(TritonSettings(home=tmp_path), backends=tmp_path)
    assert not any(flag.startswith("--model-config-name") for flag in default)
    openvino = launcher.command(TritonSettings(home=tmp_path, runtime="openvino"), backends=tmp_path)
    assert "--model-config-name=openvino" in openvino


def test_models_are_loaded_only_when_the_gateway_says_so(tmp_path: Path) -> None:
    settings = TritonSettings(home=tmp_path, triton_address="127.0.0.1:18001", triton_http_port=0)
    flags = launcher.command(settings, backends=tmp_path)
    assert "--model-control-mode=explicit" in flags
    assert f"--model-repository={tmp_path / 'staged'}" in flags
    assert {"--grpc-address=127.0.0.1", "--grpc-port=18001", "--allow-http=false"} <= set(flags)


def test_the_stubs_find_tritons_python_and_no_other(environment: Environment) -> None:
    inherited = {"PATH": "/usr/bin", "PYTHONPATH": "/elsewhere", "LANG": "C.UTF-8"}
    variables = launcher.process_environment(environment, inherited)
    assert variables["PATH"] == f"{environment.bin}:/usr/bin"
    assert "PYTHONPATH" not in variables
    assert variables["LANG"] == "C.UTF-8"


def test_a_missing_environment_ends_in_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.triton"],
        env={"CONCH_HOME": str(tmp_path), "CONCH_TRITON_ENV": str(tmp_path / "none")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("triton: no Triton in ")
    assert len(done.stderr.splitlines()) == 1


def test_a_pods_triton_loads_what_is_staged_and_is_ready_only_with_all_of_it(tmp_path: Path) -> None:
    settings = TritonSettings(home=tmp_path, runtime="tensorrt", triton_control="none")
    flags = set(launcher.command(settings, backends=tmp_path))
    assert {"--model-control-mode=none", "--strict-readiness=true", "--exit-on-error=false"} <= flags
    assert "--model-config-name=tensorrt" in flags
