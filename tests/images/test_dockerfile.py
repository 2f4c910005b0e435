"""What can be known of images without building one: they are pinned, small and lint clean."""

import os
import re
import subprocess

import pytest

from tests.images.dockerfile import ROOT, lineage, stages

SERVICES = ("gateway", "trainer", "converter", "converter-tensorrt")
TOOLS = ROOT / os.environ.get("CONCH_HOME", ".conch") / "chart-tools"


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


def test_the_image_that_builds_plans_installs_what_the_converters_does() -> None:
    """It cannot be tried without NVIDIA's image: another python in front is all that differs."""
    usual = stages()["build-converter"].all("RUN")
    theirs = [run.removeprefix("python3 -m ") for run in stages()["converter-tensorrt"].all("RUN")]
    assert theirs[-len(usual) :] == usual


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


def test_the_backends_of_triton_have_all_that_the_embedded_triton_has_but_triton() -> None:
    (packages, layout) = stages()["build-triton-backends"].all("RUN")
    assert "--requirement requirements.txt" in packages
    assert "/^nvidia-pytriton/d" in packages
    for backend in ("seq2seq", "openvino_generation"):
        assert backend in layout
        assert (ROOT / "services" / "triton" / "backends" / backend / "model.py").is_file()
