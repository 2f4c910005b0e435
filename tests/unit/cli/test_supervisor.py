"""The supervisor over tiny programs: order, health, crashes, stops."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.cli.failures import CliError
from services.cli.supervisor import Backoff, Program, Supervisor

# Writes its name when it starts and when it is told to stop; healthy once the file exists.
_PROGRAM = """
import signal, sys
name, journal, ready = sys.argv[1:4]
def say(word):
    with open(journal, "a") as f: f.write(f"{word} {name}\\n")
def stop(*_):
    say("stop"); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
say("start")
open(ready, "w").close()
while True: signal.pause()
"""
_DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({ready!r}, 'w').close()
signal.pause()
"""


class Stage:
    """A folder with programs in it and a journal of what they did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / "journal"
        self.changed = asyncio.Event()
        self.supervisor: Supervisor | None = None

    def program(self, name: str, code: str = _PROGRAM, **settings: float) -> Program:
        ready = self.folder / f"{name}.ready"

        async def is_healthy() -> bool:
            return ready.exists()

        command = [sys.executable, "-S", "-c", code.replace("{ready!r}", repr(str(ready))), name]
        command += [str(self.journal), str(ready)]
        return Program(name, command, self.folder / f"{name}.log", is_healthy, **settings)  # type: ignore[arg-type]

    def supervise(self, *programs: Program) -> Supervisor:
        backoff = Backoff(first_seconds=0.01)
        self.supervisor = Supervisor(programs, backoff=backoff, on_change=self.changed.set)
        return self.supervisor

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns once the condition holds, asked after every change of a child."""
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def said(self) -> list[str]:
        return self.journal.read_text().splitlines()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path)
    yield made
    if made.supervisor:
        made.supervisor.kill()
        await made.supervisor.stop()


def pid(supervisor: Supervisor, index: int = 0) -> int:
    process = supervisor.children[index].state().process
    assert process is not None
    return process.pid


async def test_programs_start_in_order_and_stop_in_reverse(stage: Stage) -> None:
    supervisor = stage.supervise(stage.program("a"), stage.program("b"))
    await supervisor.start()
    assert [child.phase for child in supervisor.children] == ["healthy", "healthy"]
    await supervisor.stop()
    assert stage.said() == ["start a", "start b", "stop b", "stop a"]
    assert [child.phase for child in supervisor.children] == ["stopped", "stopped"]


async def test_a_crashed_program_is_started_again(stage: Stage) -> None:
    supervisor = stage.supervise(stage.program("a"))
    await supervisor.start()
    first = pid(supervisor)
    os.kill(first, signal.SIGKILL)
    await stage.until(lambda: supervisor.children[0].phase == "crashed")
    await stage.until(lambda: supervisor.children[0].phase == "healthy")
    assert pid(supervisor) != first
    assert supervisor.children[0].state().restarts == 1


async def test_waits_between_restarts_double_up_to_a_limit() -> None:
    backoff = Backoff(first_seconds=0.5, last_seconds=3)
    assert [backoff.wait_seconds(n) for n in (1, 2, 3, 4, 9)] == [0.5, 1, 2, 3, 3]


async def test_a_program_that_ends_while_starting_fails_with_its_last_line(stage: Stage) -> None:
    dies = stage.program("b", "import sys; print('first', flush=True); sys.exit('port 1 is taken')")
    supervisor = stage.supervise(stage.program("a"), dies, stage.program("c"))
    with pytest.raises(CliError, match=r"b did not start: port 1 is taken \(log: .*b\.log\)"):
        await supervisor.start()
    await supervisor.stop()
    assert stage.said() == ["start a", "stop a"], "what came after was never started"


async def test_a_program_that_never_gets_healthy_fails_after_its_time(stage: Stage) -> None:
    mute = stage.program("a", "import signal; signal.pause()", start_seconds=0.3)
    with pytest.raises(CliError, match=r"a was not healthy within 0\.3 s"):
        await stage.supervise(mute).start()


async def test_a_program_that_ignores_sigterm_is_killed_after_its_grace(stage: Stage) -> None:
    supervisor = stage.supervise(stage.program("a", _DEAF, grace_seconds=0.2))
    await supervisor.start()
    process = supervisor.children[0].state().process
    assert process
    await supervisor.stop()
    assert process.find() is None


async def test_programs_are_out_of_reach_of_ctrl_c(stage: Stage) -> None:
    supervisor = stage.supervise(stage.program("a"))
    await supervisor.start()
    assert os.getpgid(pid(supervisor)) != os.getpgid(0)


async def test_what_a_program_prints_is_in_its_log(stage: Stage) -> None:
    program = stage.program("a", "import sys; print('to stdout'); print('to stderr', file=sys.stderr)")
    with pytest.raises(CliError):
        await stage.supervise(program).start()
    assert set(program.log.read_text().splitlines()) == {"to stdout", "to stderr"}
