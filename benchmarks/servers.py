"""Triton and gateways under test, each a process of its own whose CPU time can be read."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import prepared
from examples.stack import conch_in
from examples.waiting import wait_serving

_WAIT_SECONDS = 180


@dataclass(frozen=True)
class Gateway:
    """A gateway that serves both versions."""

    target: str
    triton: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Returns the CPU time that the gateway has used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def serving(name: str, runtime: str, **settings: str) -> Iterator[list[Gateway]]:
    """Starts a Triton on `runtime` and a gateway with default settings; yields [gateway].

    With `settings` a second gateway with those settings stands beside it on the same Triton.
    """
    logs = prepared.home() / "logs"
    logs.mkdir(exist_ok=True)
    environment = _environment(name, runtime)
    with (
        _process("services.triton", environment, logs / f"{name}-triton.log"),
        _gateway(environment, logs / f"{name}-gateway.log") as first,
    ):
        if not settings:
            yield [first]
            return
        own = conch_in(prepared.home()).environment
        beside = {key: own[key] for key in ("CONCH_GATEWAY_ADDRESS", "CONCH_METRICS_ADDRESS")}
        # A staged copy and a ledger belong to one gateway; Triton reads the first one's.
        beside |= {"CONCH_STAGED": str(prepared.home() / f"staged-{name}-2")}
        beside |= {"CONCH_LEDGER_FILE": str(prepared.home() / f"ledger-{name}-2.jsonl")}
        with _gateway({**environment, **beside, **settings}, logs / f"{name}-gateway-2.log") as second:
            yield [first, second]


def _environment(name: str, runtime: str) -> dict[str, str]:
    home = prepared.home()
    return {
        **conch_in(home).environment,
        "CONCH_RUNTIME": runtime,
        # Tritons side by side must not share a staged repository, gateways not a ledger.
        "CONCH_STAGED": str(home / f"staged-{name}"),
        "CONCH_ROUTES_FILE": str(home / "routes.json"),
        "CONCH_LEDGER_FILE": str(home / f"ledger-{name}.jsonl"),
    }


@contextmanager
def _gateway(environment: dict[str, str], log: Path) -> Iterator[Gateway]:
    with _process("services.gateway", environment, log) as process:
        target = environment["CONCH_GATEWAY_ADDRESS"]
        version = f"conch.v1.InferenceService/{prepared.MODEL}@{prepared.INT8}"
        wait_serving(target, version, seconds=_WAIT_SECONDS)
        yield Gateway(target, environment["CONCH_TRITON_ADDRESS"], psutil.Process(process.pid))


@contextmanager
def _process(module: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        command = [sys.executable, "-m", module]
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
