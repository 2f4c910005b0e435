"""`conch up` and `conch down`: starts and stops the services of one machine."""

import subprocess
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import psutil
import typer
from rich.console import Group

from services.cli import output, session, state
from services.cli.failures import FORBIDDEN, INTERRUPTED, CliError
from services.cli.output import AsJson
from services.cli.state import UpState
from services.cli.status import up_record
from services.cli.stubs import connect

if TYPE_CHECKING:  # pydantic costs a quarter of the time of `conch --help`
    from services.cli.settings import CliSettings

_STOP_SECONDS = 120.0
_POLL_SECONDS = 0.1


class Runtime(StrEnum):
    """What Triton runs models with."""

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once all are healthy.")] = False,
    runtime: Annotated[
        Runtime, typer.Option(help="auto: the faster one here that the routed versions are certified for.")
    ] = Runtime.AUTO,
    port_offset: Annotated[
        int,
        typer.Option(min=0, max=10000, help="Moves every port up, for a second set with its own CONCH_HOME."),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Start Triton, trainer, converter and gateway here, and keep them running until Ctrl-C.

    A process that crashes is started again. Logs: CONCH_HOME/logs. Training and conversion jobs are processes
    of their own and survive a restart.

    Examples:

      conch up

      conch up --detach --runtime onnxruntime

      conch down
    """
    from services.cli import runtimes
    from services.cli.settings import CliSettings

    settings = CliSettings().shifted(port_offset)
    if detach:
        _print_up(_start_detached(settings, runtime, port_offset), as_json=as_json)
        return
    session.run(
        settings,
        lambda: runtimes.choose(runtime.value, settings),
        lambda started: _print_up(started, as_json=as_json),
    )


def down(as_json: AsJson = False) -> None:
    """Stop the services in reverse order and wait until they are gone; running jobs go on by themselves.

    Example: conch down
    """
    home = connect().settings.resolved_home()
    current = state.read(home)
    names = [child.name for child in reversed(current.children)] if current else []
    supervisor = current.supervisor.find() if current else None
    if supervisor:
        _stop_supervisor(supervisor)
    else:
        names = session.stop_orphans(home)
    view = f"stopped {', '.join(names)}" if names else "nothing was up"
    output.print_result({"stopped": names}, as_json=as_json, view=view)


def _start_detached(settings: "CliSettings", runtime: Runtime, port_offset: int) -> UpState:
    home = settings.resolved_home()
    lock = state.claim(home)
    if lock is None:
        raise CliError(session.already_up(home), exit_code=FORBIDDEN)
    lock.close()
    log = home / "logs" / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        start = stream.tell()
        process = _spawn_supervisor(stream, runtime, port_offset)
    try:
        return _await_ready(process, home, log, start)
    except KeyboardInterrupt:
        message = "still starting in the background; see: conch status, stop: conch down"
        raise CliError(message, exit_code=INTERRUPTED) from None


def _spawn_supervisor(log: IO[bytes], runtime: Runtime, port_offset: int) -> "subprocess.Popen[bytes]":
    verb = ["up", "--runtime", runtime.value, "--port-offset", str(port_offset)]
    return subprocess.Popen(
        [sys.executable, "-m", "services.cli", *verb],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
        start_new_session=True,
    )


def _await_ready(process: "subprocess.Popen[bytes]", home: Path, log: Path, start: int) -> UpState:
    """Returns the state once it is ready, passing on what the supervisor says. Raises CliError if it ends."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        lines.seek(start)
        while process.poll() is None:
            _pass_on(lines)
            current = state.read(home)
            if current and current.supervisor.pid == process.pid and current.phase == "ready":
                return current
            time.sleep(_POLL_SECONDS)
        last = [line for line in lines.read().splitlines() if line.strip()][-1:] or ["it said nothing"]
    raise CliError(last[0].removeprefix("conch: "), exit_code=process.returncode or 1)


def _pass_on(lines: IO[str]) -> None:
    position = lines.tell()
    while (line := lines.readline()).endswith("\n"):
        position = lines.tell()
        if not line.startswith("conch: "):
            output.remark(line.rstrip())
    lines.seek(position)


def _stop_supervisor(supervisor: psutil.Process) -> None:
    supervisor.terminate()
    try:
        supervisor.wait(_STOP_SECONDS)
    except psutil.TimeoutExpired:
        raise CliError(
            f"pid {supervisor.pid} has not stopped in {_STOP_SECONDS:g} s; end it: kill -9 {supervisor.pid}"
        ) from None


def _print_up(current: UpState, *, as_json: bool) -> None:
    gateway = current.addresses["gateway_address"]
    lines = (
        f"up: gateway {gateway}, runtime {current.runtime} ({current.runtime_reason})",
        'next: conch ship DATA --model NAME --base-model FOLDER   or   conch classify "..."',
    )
    output.print_result(up_record(current), as_json=as_json, view=Group(*lines))
