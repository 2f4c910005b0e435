"""`conch up` on free ports in a folder of its own, for the demo, the tests and the benchmarks.

Speaks to Conch through its command line only, as a person would.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

PORTS = (
    "CONCH_GATEWAY_ADDRESS",
    "CONCH_TRAINER_ADDRESS",
    "CONCH_CONVERTER_ADDRESS",
    "CONCH_METRICS_ADDRESS",
    "CONCH_TRITON_ADDRESS",
)


class Conch:
    """The `conch` command bound to one home: `conch("models")` returns what it printed as JSON."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.environment = {**os.environ, **environment}

    def __call__(self, *arguments: str) -> Any:
        """Runs a verb with --json and returns the last line's object. Raises CalledProcessError."""
        command = [*self.command(*arguments), "--json"]
        done = subprocess.run(
            command, env=self.environment, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        return json.loads(done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else None

    def show(self, *arguments: str) -> None:
        """Runs a verb as a person sees it. Raises CalledProcessError."""
        print(f"\n$ conch {' '.join(arguments)}", flush=True)
        subprocess.run(self.command(*arguments), env=self.environment, check=True)

    def command(self, *arguments: str) -> list[str]:
        """Returns the command line of a verb."""
        return [sys.executable, "-m", "services.cli", *arguments]

    @property
    def gateway(self) -> str:
        """The gateway's host:port."""
        return self.environment["CONCH_GATEWAY_ADDRESS"]


def conch_in(home: Path, **environment: str) -> Conch:
    """Returns the command for `home` with free ports; Triton's environment and the cache are shared."""
    shared = Path(os.environ.get("CONCH_HOME", ".conch")).absolute()
    with ExitStack() as taken:
        ports = [_free_port(taken) for _ in range(len(PORTS) + 2)]
    return Conch(
        home,
        {
            "CONCH_HOME": str(home.absolute()),
            "CONCH_REPOSITORY_URI": str(home.absolute() / "model_repository"),
            "CONCH_TRITON_ENV": os.environ.get("CONCH_TRITON_ENV", str(shared / "triton")),
            "CONCH_CACHE": str(shared / "cache"),
            "HF_HUB_OFFLINE": "1",
            **{name: f"127.0.0.1:{port}" for name, port in zip(PORTS, ports, strict=False)},
            "CONCH_TRITON_HTTP_PORT": str(ports[-2]),
            "CONCH_TRITON_METRICS_PORT": str(ports[-1]),
            **environment,
        },
    )


@contextmanager
def running(home: Path, *, runtime: str = "auto", **environment: str) -> Iterator[Conch]:
    """Starts Triton and the three services in `home` and stops them at the end."""
    conch = conch_in(home, **environment)
    conch("up", "--detach", "--runtime", runtime)
    try:
        yield conch
    finally:
        conch("down")


def _free_port(taken: ExitStack) -> int:
    # Every socket stays open until all ports are chosen, so that no port is chosen twice.
    listener = taken.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    return int(listener.getsockname()[1])
