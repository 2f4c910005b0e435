"""Worker processes on this machine: started apart from the service, found again, watched, stopped.

Knows Linux (pidfds, flock, /proc); knows nothing about jobs or databases. A worker outlives the
service that started it. A lock on its folder, held from before it begins until it is gone, makes
sure that no second worker works there.
"""

import asyncio
import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LOG = "worker.log"
_LOCK = "worker.lock"
_TAIL_LINES = 20
_TAIL_BYTES = 8192


@dataclass(frozen=True)
class Process:
    """A process that may have ended since. `fd` names it for good: its pid may be used again, the fd not."""

    pid: int
    mark: str
    fd: int
    popen: subprocess.Popen[bytes] | None
    """Set if it is our own child: then its exit code can be known."""


def start(command: Sequence[str], folder: Path) -> Process:
    """Starts a worker in a session of its own, its output in `folder`/worker.log.

    Raises BlockingIOError if a worker is alive in `folder`, OSError if none can be started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (folder / LOG).open("ab") as log:
            # The child inherits the lock itself: whenever we die from here on, it is held while it lives.
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
            )
    finally:
        os.close(lock)
    return Process(child.pid, _mark(child.pid) or "", os.pidfd_open(child.pid), child)


def find(pid: int, mark: str) -> Process | None:
    """Returns the living process that `start` once returned with this pid and mark."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    # In this order: what the fd names is alive now, so a mark read now is its own.
    if _mark(pid) != mark:
        os.close(fd)
        return None
    return Process(pid, mark, fd, None)


def find_in(folder: Path) -> Process | None:
    """Returns the living worker of `folder` by the lock that it holds: for one whose pid was never noted."""
    if not (folder / _LOCK).exists() or _lock_is_free(folder / _LOCK):
        return None
    holders = [pid for pid in _pids() if pid != os.getpid() and _has_open(pid, folder / _LOCK)]
    oldest = min(holders, key=_started_ticks, default=None)
    mark = _mark(oldest) if oldest is not None else None
    return find(oldest, mark) if oldest is not None and mark is not None else None


async def wait(process: Process) -> int | None:
    """Returns once the process is gone: its exit code (negative: signal) or None if that cannot be known.

    What is left of its session is killed, unless this is cancelled. Closes `process.fd`.
    """
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(process.fd, gone.set)
    try:
        await gone.wait()
    except asyncio.CancelledError:
        loop.remove_reader(process.fd)
        os.close(process.fd)
        raise
    loop.remove_reader(process.fd)
    kill(process)
    os.close(process.fd)
    return process.popen.wait() if process.popen is not None else None


def stop(process: Process) -> None:
    """Asks the process to wind down (SIGTERM); nothing if it is gone."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(process.fd, signal.SIGTERM)


def kill(process: Process) -> None:
    """Kills the process and what it started (SIGKILL); nothing if they are gone."""
    # Before the exit code of a child is fetched its pid, and so its group's, cannot be another's.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def describe_exit(code: int | None) -> str:
    """Returns how a worker without a last word ended, as a sentence."""
    if code is None:
        return "the worker was killed or crashed while its service was away"
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory, or a person's kill -9)" if -code == signal.SIGKILL else ""
        return f"the worker was killed by {name}{hint}"
    return f"the worker ended with exit code {code}"


def log_tail(folder: Path) -> str:
    """Returns the last lines of the worker's log, empty if it left none."""
    path = folder / LOG
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        text = file.read().decode(errors="replace").replace("\x00", "")
    return "\n".join(text.splitlines()[-_TAIL_LINES:])


def _mark(pid: int) -> str | None:
    """Returns what tells this process from a later one with its pid; None if it is gone or a zombie."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{fields[19]}"


def _stat(pid: int) -> list[str] | None:
    """Returns the fields of proc(5)'s stat from the state (field 3) on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _started_ticks(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[19]) if fields is not None else 0


def _lock_is_free(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _has_open(pid: int, path: Path) -> bool:
    target = str(path.resolve())
    try:
        fds = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    return any(_link(f"/proc/{pid}/fd/{fd}") == target for fd in fds)


def _link(path: str) -> str | None:
    # One fd may be closed while others are looked at.
    try:
        return os.readlink(path)
    except OSError:
        return None
