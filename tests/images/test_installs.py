"""The install steps of the Dockerfile work in clean environments, and the gateway's holds no torch.

Minutes the first time; then nothing is installed until what decides it changes.
"""

import subprocess
from pathlib import Path

import pytest

from tests.chart import charts
from tests.images.dockerfile import ROOT, once, stages

_SOURCES = {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}", "PYTHONDONTWRITEBYTECODE": "1"}
"""What is installed is the Dockerfile's, what is imported is as it stands here."""


@pytest.fixture(scope="module")
def gateway() -> Path:
    """The gateway's environment as the Dockerfile makes it; a minute or two the first time."""
    return once("build-gateway") / "image" / "venv"


def test_the_gateways_image_has_neither_torch_nor_transformers(gateway: Path) -> None:
    """Prints how large its environment is."""
    size = sum(path.stat().st_size for path in gateway.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"gateway: {size / 1e6:.0f} MB")
    program = "import services.gateway.__main__, services.gateway.pool_serving, sys; print(*sys.modules)"
    loaded = set(_python(gateway, "-c", program).split())
    assert not {"torch", "transformers", "onnxruntime", "openvino", "tensorrt"} & loaded
    installed = {path.name.split("-")[0] for path in gateway.glob("lib/python*/site-packages/*.dist-info")}
    assert not {"torch", "transformers", "pip", "onnx", "onnxruntime", "openvino"} & installed
    assert {"kubernetes", "tokenizers", "grpcio"} <= installed


@pytest.mark.parametrize("verb", ["stage", "preflight", "prove", "classify"])
def test_the_gateways_image_has_the_command_line(gateway: Path, verb: str) -> None:
    assert verb in _python(gateway, gateway / "bin" / "conch", verb, "--help")


def test_the_gateways_image_runs_what_its_command_says(gateway: Path) -> None:
    """A setting that is none makes it say so and end instead of serving."""
    (command,) = stages()["gateway"].all("CMD")
    assert command == '["python", "-m", "services.gateway"]'
    done = subprocess.run(
        [gateway / "bin" / "python", "-m", "services.gateway"],
        env={**_SOURCES, "CONCH_MAX_TEXTS": "0"},
        cwd=gateway,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("gateway: CONCH_MAX_TEXTS: ")


def test_the_program_of_helm_test_runs_in_the_gateways_image(gateway: Path) -> None:
    """It finds nobody at these names, and says so by its exit code alone."""
    pod = charts.find(charts.objects(), "Pod", "conch-test-health")
    for container in pod["spec"]["containers"]:
        _, *program = container["command"]
        done = subprocess.run(
            [gateway / "bin" / "python", *(part.replace("=10", "=0.2") for part in program)],
            env=_SOURCES,
            cwd=gateway,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("service", ["trainer", "converter"])
def test_what_trainer_and_converter_install_resolves(service: str) -> None:
    printed = (once(f"build-{service}", dry_run=True) / "printed.txt").read_text(encoding="utf-8")
    assert "torch-2.13.0" in printed
    assert "conch-" in printed


def _python(environment: Path, *arguments: "str | Path") -> str:
    """Returns what the environment's python prints."""
    command = [environment / "bin" / "python", *arguments]
    done = subprocess.run(command, cwd=environment, env=_SOURCES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
