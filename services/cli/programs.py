"""The programs of one machine, in the order in which they start: Triton, trainer, converter, gateway.

Knows how each is started, asked and configured; starts nothing.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from services.cli import health
from services.cli.supervisor import Program

if TYPE_CHECKING:  # pydantic costs a quarter of the time of `conch --help`
    from services.cli.settings import CliSettings

NAMES = ("triton", "trainer", "converter", "gateway")


def programs(settings: "CliSettings", runtime: str) -> list[Program]:
    """Returns the programs of this machine, with `runtime` as Triton's."""
    from services.cli.settings import child_environment

    environment = child_environment(_variables(settings, runtime))
    logs = settings.resolved_home() / "logs"
    # One address for metrics is one process's: the gateway's.
    silent = {**environment, "CONCH_METRICS_ADDRESS": ""}
    return [_program(name, settings, logs, environment if name == "gateway" else silent) for name in NAMES]


def is_healthy(name: str, settings: "CliSettings") -> bool:
    """Returns True if the program of that name is usable now."""
    if name == "triton":
        return health.is_triton_ready(settings.triton_address)
    return health.is_serving(str(settings.addresses()[f"{name}_address"]))


def _program(name: str, settings: "CliSettings", logs: Path, environment: dict[str, str]) -> Program:
    return Program(
        name,
        command=[sys.executable, "-m", f"services.{name}"],
        log=logs / f"{name}.log",
        is_healthy=_asked_in_thread(name, settings),
        environment=environment,
    )


def _asked_in_thread(name: str, settings: "CliSettings") -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return await asyncio.to_thread(is_healthy, name, settings)

    return ask


def _variables(settings: "CliSettings", runtime: str) -> dict[str, str]:
    addresses = {f"CONCH_{name.upper()}": str(value) for name, value in settings.addresses().items()}
    home = {"CONCH_HOME": str(settings.resolved_home()), "CONCH_RUNTIME": runtime}
    # Logs of a service that is killed must end where it ended.
    return {**addresses, **home, "PYTHONUNBUFFERED": "1"}
