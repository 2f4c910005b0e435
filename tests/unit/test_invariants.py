"""Conventions that hold for the whole tree and would otherwise only be words in ARCHITECTURE.md."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
SOURCES = [p for p in (ROOT / "services").rglob("*.py") if "migrations" not in p.parts]
# Programs that hand their own environment on, to another one or to a library that reads nothing else.
PASS_IT_ON = {"services/triton/install.py", "services/triton/__main__.py", "services/trainer/run.py"}
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("service", ["gateway", "cli"])
def test_the_gateway_and_the_command_line_import_neither_torch_nor_transformers(service: str) -> None:
    program = f"import services.{service}.__main__, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert not {"torch", "transformers", "tensorrt", "kubernetes"} & set(done.stdout.split())


def test_the_environment_is_read_in_settings_alone() -> None:
    readers = {
        p.relative_to(ROOT).as_posix() for p in SOURCES if re.search(r"os\.environ|getenv", p.read_text())
    }
    assert {r for r in readers if not r.endswith("settings.py")} <= PASS_IT_ON


def test_no_module_is_longer_than_250_lines() -> None:
    long = {str(p.relative_to(ROOT)) for p in SOURCES if len(p.read_text().split("\n")) > 250}
    assert not long


def test_every_module_says_what_it_knows() -> None:
    mute = {
        str(p.relative_to(ROOT)) for p in SOURCES if p.read_text() and not p.read_text().startswith('"""')
    }
    assert not mute


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_only_settings_that_exist(document: Path) -> None:
    settings = "\n".join(p.read_text() for p in SOURCES if p.name == "settings.py")
    named = set(re.findall(r"CONCH_[A-Z_]+[A-Z]", document.read_text(encoding="utf-8")))
    assert {name for name in named if name not in settings} <= {"CONCH_GOLDEN"}


def test_the_readmes_commands_are_verbs_of_the_command_line() -> None:
    from services.cli.app import app

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for verb in sorted(set(re.findall(r"^conch (\w+)", text, re.MULTILINE))):
        assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0, verb


def test_the_readmes_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"`?make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
