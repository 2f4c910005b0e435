"""What `conch up` tells the other verbs: the state file CONCH_HOME/run/up.json and the lock beside it.

The lock is held for as long as the supervisor lives and no longer, however it dies; the state file may be
stale, so every process in it is named by pid and start time. Starts and stops nothing.
"""

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil


@dataclass(frozen=True)
class ProcessRef:
    """One process, safe against pids that are used again: `started` is seconds since the epoch."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> "ProcessRef":
        """Returns the reference of a process that runs now. Raises psutil.NoSuchProcess."""
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """Returns the process while it lives, else None."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 0.05
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True)
class ChildState:
    """One supervised process; `phase` is starting, healthy, crashed or stopped."""

    name: str
    phase: str
    log: str
    restarts: int = 0
    process: ProcessRef | None = None


@dataclass(frozen=True)
class UpState:
    """Everything that `conch up` tells; `phase` is starting, ready or stopping."""

    supervisor: ProcessRef
    phase: str
    runtime: str
    runtime_reason: str
    addresses: dict[str, str | int]
    children: Sequence[ChildState] = field(default_factory=tuple)

    def alive(self) -> bool:
        """True while the supervisor that wrote this lives."""
        return self.supervisor.find() is not None


def read(home: Path) -> UpState | None:
    """Returns the state that stands on disk, which may be stale; None if there is none."""
    try:
        return _decode(json.loads(_path(home).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write(home: Path, up: UpState) -> None:
    """Replaces the state file atomically."""
    path = _path(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(asdict(up), indent=1), encoding="utf-8")
    partial.replace(path)


def remove(home: Path) -> None:
    """Removes the state file."""
    _path(home).unlink(missing_ok=True)


def claim(home: Path) -> IO[bytes] | None:
    """Returns the held lock of the one supervisor of `home`, None if another process holds it.

    Closing it, or the end of the process, releases it.
    """
    path = home / "run" / "up.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _path(home: Path) -> Path:
    return home / "run" / "up.json"


def _decode(data: dict[str, Any]) -> UpState:
    children = [ChildState(**{**c, "process": _ref(c["process"])}) for c in data["children"]]
    return UpState(**{**data, "supervisor": ProcessRef(**data["supervisor"]), "children": children})


def _ref(data: dict[str, Any] | None) -> ProcessRef | None:
    return ProcessRef(**data) if data else None
