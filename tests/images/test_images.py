"""What can be known of images without building one: they are pinned, lint clean, and their installs work."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.images.dockerfile import ROOT, lineage, once, stages

SERVICES = ("gateway", "trainer", "converter", "converter-tensorrt")
_SOURCES = {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}", "PYTHONDONTWRITEBYTECODE": "1"}
"""What is installed is the Dockerfile's, what is imported is as it stands here."""
TOOLS = ROOT / os.environ.get("CONCH_HOME", ".conch") / "chart-tools"


@pytest.fixture(scope="module")
def gateway() -> Path:
    """The gateway's environment as the Dockerfile makes it; a minute or two the first time."""
    return once("build-gateway") / "image" / "venv"


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [TOOLS / "venv" / "bin" / "hadolint", "--no-color", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_every_base_is_pinned() -> None:
    given = dict(argument.split("=", 1) for argument in stages()[""].all("ARG"))
    for stage in stages().values():
        base = re.sub(r"\$\{(\w+)\}", lambda found: given[found[1]], stage.base)
        assert not base or base in stages() or re.search(r":\d+\.\d+", base), stage.name


@pytest.mark.parametrize("target", [*SERVICES, "triton-backends"])
def test_every_image_runs_as_nobody(target: str) -> None:
    users = [user for stage in lineage(target) for user in stage.all("USER")]
    assert users[-1] == "10001:10001"


@pytest.mark.parametrize("target", SERVICES[:3])
def test_what_is_shipped_installs_nothing_and_has_no_tools_to_build_with(target: str) -> None:
    runs = [run for stage in lineage(target) for run in stage.all("RUN")]
    assert not any(tool in run for run in runs for tool in ("pip", "apt", "gcc"))


def test_the_chart_names_targets_that_there_are() -> None:
    templates = (ROOT / "charts" / "conch" / "templates").rglob("*")
    text = "".join(path.read_text(encoding="utf-8") for path in templates if path.is_file())
    named = set(re.findall(r'"conch\.image" \(list \$\w* "([a-z-]+)"\)', text))
    assert named == {"gateway", "trainer", "converter", "triton-backends"}
    assert named | {"converter-tensorrt"} <= set(stages())


def test_the_context_holds_what_is_copied_and_little_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        name.split("/")[0]
        for stage in stages().values()
        for copy in stage.all("COPY")
        if not copy.startswith("--from")
        for name in copy.split()[:-1]
    }
    assert copied == allowed


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


@pytest.mark.parametrize("service", ["trainer", "converter"])
def test_what_trainer_and_converter_install_resolves(service: str) -> None:
    printed = (once(f"build-{service}", dry_run=True) / "printed.txt").read_text(encoding="utf-8")
    assert "torch-2.13.0" in printed
    assert "conch-" in printed


def test_the_backends_of_triton_have_all_that_the_embedded_triton_has_but_triton() -> None:
    (packages, layout) = stages()["build-triton-backends"].all("RUN")
    assert "--requirement requirements.txt" in packages
    assert "/^nvidia-pytriton/d" in packages
    for backend in ("seq2seq", "openvino_generation"):
        assert backend in layout
        assert (ROOT / "services" / "triton" / "backends" / backend / "model.py").is_file()


def _python(environment: Path, *arguments: "str | Path") -> str:
    """Returns what the environment's python prints."""
    command = [environment / "bin" / "python", *arguments]
    done = subprocess.run(command, cwd=environment, env=_SOURCES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
