"""Debian's archive read by apt-get with state and cache of our own: needs no root and disturbs nobody.

Knows apt-get; knows nothing about what is in the archive.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def private(folder: Path, *, languages: str = "none") -> Iterator["Apt"]:
    """Yields an apt-get whose lists are fresh, of the archive's texts in `languages`; `folder` is scratch."""
    place = folder.with_name(f"{folder.name}.{os.getpid()}")
    for name in ("state/lists/partial", "cache/archives/partial"):
        (place / name).mkdir(parents=True, exist_ok=True)
    try:
        apt = Apt(place, languages)
        apt.run("update")
        yield apt
    finally:
        shutil.rmtree(place, ignore_errors=True)


class Apt:
    """An apt-get with state and cache below `folder`."""

    def __init__(self, folder: Path, languages: str) -> None:
        self.folder = folder
        options = {
            "Dir::State": folder / "state",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": folder / "cache",
            "Acquire::Languages": languages,
            "Acquire::GzipIndexes": "false",
            "APT::Sandbox::User": "",
        }
        self._options = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]

    def run(self, *arguments: str) -> None:
        """Runs apt-get in the folder. Raises CalledProcessError."""
        subprocess.run(["apt-get", *arguments, "-qq", *self._options], cwd=self.folder, check=True)

    @property
    def lists(self) -> Path:
        """The folder with the archive's lists."""
        return self.folder / "state" / "lists"
