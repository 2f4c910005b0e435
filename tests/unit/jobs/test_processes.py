"""Worker processes: found again, never mistaken, never doubled."""

import asyncio
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from services.jobs import processes

_SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


async def end(process: processes.Process) -> int | None:
    processes.kill(process)
    return await processes.wait(process)


async def test_the_exit_code_of_a_child_is_known(tmp_path: Path) -> None:
    process = processes.start([sys.executable, "-c", "print('bye'); exit(3)"], tmp_path)
    assert await processes.wait(process) == 3
    assert processes.log_tail(tmp_path) == "bye"


async def test_a_living_worker_is_found_by_pid_and_mark_and_no_other(tmp_path: Path) -> None:
    process = processes.start(_SLEEP, tmp_path)
    found = processes.find(process.pid, process.mark)
    assert found is not None
    assert processes.find(process.pid, "another boot/1") is None
    ended = asyncio.create_task(processes.wait(found))
    assert await end(process) == -signal.SIGKILL
    assert await ended is None
    assert processes.find(process.pid, process.mark) is None


async def test_a_folder_has_one_living_worker_at_most(tmp_path: Path) -> None:
    process = processes.start(_SLEEP, tmp_path)
    with pytest.raises(BlockingIOError):
        processes.start(_SLEEP, tmp_path)
    found = processes.find_in(tmp_path)
    assert found is not None
    assert found.pid == process.pid
    os.close(found.fd)
    await end(process)
    assert processes.find_in(tmp_path) is None
    await end(processes.start(_SLEEP, tmp_path))


async def test_what_a_worker_leaves_running_is_ended_with_it(tmp_path: Path) -> None:
    script = "import os, subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"
    process = processes.start([sys.executable, "-c", script], tmp_path)
    await processes.wait(process)
    orphan = int(processes.log_tail(tmp_path))
    await asyncio.to_thread(wait_until_gone, orphan)


def wait_until_gone(pid: int) -> None:
    """Returns once a process is gone, whoever its parent is."""
    with suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        assert select.select([fd], [], [], 10)[0]
        os.close(fd)


async def test_a_log_is_shown_by_its_end(tmp_path: Path) -> None:
    (tmp_path / processes.LOG).write_text("".join(f"line {n}\n" for n in range(5000)))
    assert processes.log_tail(tmp_path).splitlines() == [f"line {n}" for n in range(4980, 5000)]
    assert processes.log_tail(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(None, "while its service was away"), (-9, "killed by SIGKILL"), (1, "exit code 1")],
)
def test_an_end_is_told_as_a_sentence(code: int | None, sentence: str) -> None:
    assert sentence in processes.describe_exit(code)
