"""Starts programs in order, keeps them running and stops them in reverse order.

Each is its own process group, so that Ctrl-C reaches the supervisor alone. Knows processes, log files and a
question "are you healthy?"; knows nothing about what the programs are.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from services.cli.failures import CliError
from services.cli.state import ChildState, ProcessRef

_ASK_AGAIN_SECONDS = 0.05


@dataclass(frozen=True)
class Program:
    """What to run, where it logs and how to ask whether it is usable."""

    name: str
    command: Sequence[str]
    log: Path
    is_healthy: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str] | None = None
    grace_seconds: float = 30.0
    start_seconds: float = 120.0


@dataclass(frozen=True)
class Backoff:
    """Waits between restarts: doubling from `first_seconds`, forgotten after `calm_seconds` of calm."""

    first_seconds: float = 0.5
    last_seconds: float = 30.0
    calm_seconds: float = 60.0

    def wait_seconds(self, crashes: int) -> float:
        """Returns the wait after that many crashes in a row (from 1)."""
        return float(min(self.first_seconds * 2 ** (crashes - 1), self.last_seconds))


class Child:
    """One program and the process that runs it now."""

    def __init__(self, program: Program, on_change: Callable[[], None]) -> None:
        self.program = program
        self.restarts = 0
        self.phase = "stopped"
        self._on_change = on_change
        self._process: asyncio.subprocess.Process | None = None
        self._ref: ProcessRef | None = None
        self._log_start = 0

    def state(self) -> ChildState:
        """Returns what the state file says of it."""
        return ChildState(self.program.name, self.phase, str(self.program.log), self.restarts, self._ref)

    async def spawn(self) -> None:
        """Starts the process; its output goes to the end of its log."""
        self.program.log.parent.mkdir(parents=True, exist_ok=True)
        with self.program.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self.program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.program.environment,
                start_new_session=True,
            )
        self._ref = _reference(self._process.pid)
        self.enter("starting")

    async def exited(self) -> int:
        """Waits for the end of the process and returns its exit status, negative for a signal."""
        assert self._process is not None
        return await self._process.wait()

    async def healthy(self) -> None:
        """Returns once the program says it is healthy; asks again and again."""
        while not await self.program.is_healthy():  # noqa: ASYNC110  # no event crosses processes
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
        self.enter("healthy")

    async def stop(self) -> None:
        """Sends SIGTERM, waits for the grace time, then SIGKILL; does nothing if it has ended."""
        if self._process is None or self._process.returncode is not None:
            return self.enter("stopped")
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), self.program.grace_seconds)
        except TimeoutError:
            self.kill()
            await self._process.wait()
        return self.enter("stopped")

    def kill(self) -> None:
        """Sends SIGKILL if the process still runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def last_words(self) -> str:
        """Returns the last line that the current process logged."""
        with self.program.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it logged nothing")

    def enter(self, phase: str) -> None:
        """Notes a new phase."""
        self.phase = phase
        self._on_change()


class Supervisor:
    """Runs `programs`; `on_change` is called after every change of any child's phase."""

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        backoff: Backoff | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._backoff = backoff or Backoff()
        self._keepers: list[asyncio.Task[None]] = []
        self.children = [Child(program, on_change) for program in programs]

    async def start(self) -> None:
        """Starts each program once the one before is healthy. Raises CliError if one does not come up."""
        for child in self.children:
            await self._start_one(child)
            self._keepers.append(asyncio.create_task(self._keep(child)))

    async def stop(self) -> None:
        """Stops the programs in reverse order; none is restarted any more."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for child in reversed(self.children):
            await child.stop()

    def kill(self) -> None:
        """Ends every program at once."""
        for child in self.children:
            child.kill()

    async def _start_one(self, child: Child) -> None:
        await child.spawn()
        exited, healthy = asyncio.create_task(child.exited()), asyncio.create_task(child.healthy())
        try:
            await asyncio.wait(
                (exited, healthy),
                timeout=child.program.start_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not healthy.done():
                raise _start_failure(child, exited)
            healthy.result()
        finally:
            exited.cancel()
            healthy.cancel()

    async def _keep(self, child: Child) -> None:
        crashes = 0
        while True:
            began = time.monotonic()
            await self._outlive(child)
            calm = time.monotonic() - began > self._backoff.calm_seconds
            crashes = 1 if calm else crashes + 1
            child.restarts += 1
            child.enter("crashed")
            await asyncio.sleep(self._backoff.wait_seconds(crashes))
            # A machine that can start no process now may do so after the next wait.
            with suppress(OSError):
                await child.spawn()

    async def _outlive(self, child: Child) -> None:
        """Waits for the end of the child's process, noting meanwhile when it gets healthy."""
        if child.phase == "healthy":
            await child.exited()
            return
        watcher = asyncio.create_task(child.healthy())
        try:
            await child.exited()
        finally:
            watcher.cancel()


def _reference(pid: int) -> ProcessRef | None:
    try:
        return ProcessRef.of(pid)
    except psutil.NoSuchProcess:  # it ended at once
        return None


def _start_failure(child: Child, exited: "asyncio.Task[int]") -> CliError:
    log = child.program.log
    if exited.done():
        return CliError(f"{child.program.name} did not start: {child.last_words()} (log: {log})")
    return CliError(
        f"{child.program.name} was not healthy within {child.program.start_seconds:g} s (log: {log})"
    )
