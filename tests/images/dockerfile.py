"""The Dockerfile as its targets, and a stage's install steps run in a folder in place of an image.

Knows FROM, ARG, COPY, ENV and RUN; cannot build an image.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PLACE = "/opt/conch"


@dataclass
class Stage:
    """One `FROM ... AS name` and what follows it."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    """Instruction and its arguments, in order."""

    def all(self, instruction: str) -> list[str]:
        """Returns the arguments of every instruction of a kind."""
        return [arguments for name, arguments in self.steps if name == instruction]


def stages() -> dict[str, Stage]:
    """Returns the stages by name; ARGs before the first are in the stage ""."""
    found = {"": Stage("", "")}
    current = found[""]
    for instruction, arguments in _instructions():
        if instruction == "FROM":
            base, _, name = arguments.partition(" AS ")
            current = found[name] = Stage(name, base)
        else:
            current.steps.append((instruction, arguments))
    return found


def lineage(name: str) -> list[Stage]:
    """Returns a stage and those that it is made from, the first of them first."""
    known, chain = stages(), []
    while name in known:
        chain.insert(0, known[name])
        name = known[name].base
    return chain


def install(name: str, folder: Path, *, dry_run: bool = False) -> str:
    """Runs all RUN lines that lead to a stage and returns what they print; `folder` stands for /opt/conch.

    Copies what COPY names. With `dry_run` pip resolves and installs nothing.
    """
    source = folder / "src"
    source.mkdir(parents=True)
    printed = ""
    for stage in lineage(name):
        for instruction, arguments in stage.steps:
            if instruction == "COPY":
                _copy(arguments.split(), source)
            elif instruction == "RUN":
                printed += _run(_here(arguments, folder, dry_run=dry_run), source)
    return printed


def once(name: str, *, dry_run: bool = False) -> Path:
    """Returns the folder that `install` filled, with `printed.txt`; fills it when what decides it changed.

    The sources are no part of that: they are imported from where they lie.
    """
    decides = b"".join(
        (ROOT / one).read_bytes() for one in ("Dockerfile", "pyproject.toml", "constraints.txt")
    )
    digest = hashlib.sha256(decides + sys.version.encode()).hexdigest()[:16]
    folder = ROOT / os.environ.get("CONCH_HOME", ".conch") / "images" / f"{name}-{digest}"
    if not (folder / "printed.txt").exists():
        for stale in folder.parent.glob(f"{name}-*"):
            shutil.rmtree(stale)
        printed = install(name, folder, dry_run=dry_run)
        (folder / "printed.txt").write_text(printed, encoding="utf-8")
    return folder


def _instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def _copy(names: list[str], source: Path) -> None:
    for name in names[:-1]:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / names[-1], ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / Path(name).name)


def _here(command: str, folder: Path, *, dry_run: bool) -> str:
    """Returns a command of the Dockerfile for this machine: its paths, and this Python."""
    command = command.replace(_PLACE, str(folder / "image"))
    command = re.sub(r"\bpython -m venv\b", f"{sys.executable} -m venv", command)
    command = re.sub(r"(^|&& )pip ", rf"\1{sys.executable} -m pip ", command)
    return command.replace(" install ", " install --dry-run ") if dry_run else command


def _run(command: str, source: Path) -> str:
    # The index of CPU wheels is torch's own; any other that has torch shows that the rest of the line holds.
    environment = {
        **os.environ,
        "TORCH_INDEX": os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    done = subprocess.run(
        ["bash", "-ec", command], cwd=source, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
