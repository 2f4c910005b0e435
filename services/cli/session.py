"""One `conch up`, from the lock to the last process stopped.

Knows the order of things: one supervisor a home, orphans of a dead one first, ports checked before anything
starts, state told to the other verbs. Knows nothing about what the programs do.
"""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from services.cli import output, ports, state
from services.cli.failures import FORBIDDEN, CliError
from services.cli.programs import programs
from services.cli.routed import is_settled, routed_versions
from services.cli.state import ProcessRef, UpState
from services.cli.supervisor import Program, Supervisor

if TYPE_CHECKING:  # pydantic costs a quarter of the time of `conch --help`
    from services.cli.runtimes import Choice
    from services.cli.settings import CliSettings

_ORPHAN_GRACE_SECONDS = 20.0
_LOAD_SECONDS = 120.0
_ASK_AGAIN_SECONDS = 0.1


def run(settings: "CliSettings", choose: Callable[[], "Choice"], on_ready: Callable[[UpState], None]) -> None:
    """Runs the services until SIGTERM or Ctrl-C. Raises CliError if they run already or do not come up."""
    home = settings.resolved_home()
    lock = state.claim(home)
    if lock is None:
        raise CliError(already_up(home), exit_code=FORBIDDEN)
    with lock:
        for name in stop_orphans(home):
            output.remark(f"stopped {name}, left over from a supervisor that died")
        ports.require_free(settings.listeners())
        _require_triton(settings)
        choice = choose()
        output.remark(f"runtime {choice.runtime} ({choice.reason})")
        session = Session(settings, choice, programs(settings, choice.runtime), _loading(settings))
        asyncio.run(session.run(on_ready))


def already_up(home: Path) -> str:
    """Returns the sentence for a second `conch up`."""
    up = state.read(home)
    who = f" by pid {up.supervisor.pid}, {up.phase}" if up and up.alive() else ""
    return f"the services of {home} are up already{who}; see: conch status, stop: conch down"


def stop_orphans(home: Path) -> list[str]:
    """Stops what a dead supervisor left running, in reverse order, and returns the names."""
    up = state.read(home)
    if up is None or up.alive():
        return []
    stopped = []
    for child in reversed(up.children):
        process = child.process.find() if child.process else None
        if process:
            _end(process)
            stopped.append(child.name)
    state.remove(home)
    return stopped


class Session:
    """Supervises `programs` and keeps the state file true."""

    def __init__(
        self,
        settings: "CliSettings",
        choice: "Choice",
        programs: list[Program],
        is_settled: Callable[[], bool] = lambda: True,
    ) -> None:
        self._home = settings.resolved_home()
        self._addresses = settings.addresses()
        self._choice = choice
        self._phase = "starting"
        self._said: dict[str, str] = {}
        self._began = time.monotonic()
        self._is_settled = is_settled
        self._supervisor = Supervisor(programs, on_change=self._tell)

    async def run(self, on_ready: Callable[[UpState], None]) -> None:
        """Starts, calls `on_ready` once all are healthy, waits for a signal, stops. Raises CliError."""
        stopping = asyncio.create_task(self._stop_signal())
        starting = asyncio.create_task(self._start())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                self._enter("ready")
                on_ready(self.state())
                await stopping
        finally:
            starting.cancel()
            stopping.cancel()
            self._enter("stopping")
            await self._supervisor.stop()
            state.remove(self._home)

    def state(self) -> UpState:
        """Returns what the state file says now."""
        children = [child.state() for child in self._supervisor.children]
        choice, me = self._choice, ProcessRef.of(psutil.Process().pid)
        return UpState(me, self._phase, choice.runtime, choice.reason, self._addresses, children)

    async def _start(self) -> None:
        await self._supervisor.start()
        deadline = time.monotonic() + _LOAD_SECONDS
        if not await asyncio.to_thread(self._is_settled):
            output.remark("          routed versions are loading")
        while not await asyncio.to_thread(self._is_settled):
            if time.monotonic() > deadline:
                return output.remark("routed versions are still loading; see: conch status")
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
        return None

    async def _stop_signal(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            if stop.is_set():
                self._supervisor.kill()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, on_signal)
        await stop.wait()
        output.remark("stopping; once more to end everything at once")

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._tell()

    def _tell(self) -> None:
        up = self.state()
        state.write(self._home, up)
        for child in up.children:
            if child.phase != self._said.get(child.name, "stopped"):
                self._said[child.name] = child.phase
                seconds = time.monotonic() - self._began
                output.remark(f"{seconds:6.1f} s  {child.name} {child.phase}")


def _loading(settings: "CliSettings") -> Callable[[], bool]:
    """Returns the question whether the gateway is done with the versions that are routed now."""
    versions = routed_versions(settings)
    return lambda: is_settled(settings, versions)


def _require_triton(settings: "CliSettings") -> None:
    """Builds Triton's own environment if it is not there. Raises CliError with what its builder said."""
    from services.triton.environment import Environment

    if Environment(settings.resolved_triton_env()).server.is_file():
        return
    output.remark("first start: building Triton's own environment, which takes minutes")
    command = [sys.executable, "-m", "services.triton.install"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or ["it said nothing"]
        raise CliError(f"cannot build Triton's environment: {last[0]}")


def _end(process: psutil.Process) -> None:
    try:
        process.terminate()
        process.wait(_ORPHAN_GRACE_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait()
    except psutil.NoSuchProcess:
        pass
