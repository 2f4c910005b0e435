"""Settings of the command line: where the services answer. Environment variables CONCH_*.

What `conch up` chose last (its state file) stands in for addresses that the environment leaves open.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from services.cli import state
from services.settings import SharedSettings

ADDRESSES = (
    "gateway_address",
    "trainer_address",
    "converter_address",
    "metrics_address",
    "triton_address",
    "triton_http_port",
    "triton_metrics_port",
)


class CliSettings(SharedSettings):
    """Where the services of this machine answer and where their things lie."""

    gateway_address: str = "127.0.0.1:50051"
    """CONCH_GATEWAY_ADDRESS."""
    trainer_address: str = "127.0.0.1:50052"
    """CONCH_TRAINER_ADDRESS."""
    converter_address: str = "127.0.0.1:50053"
    """CONCH_CONVERTER_ADDRESS."""
    metrics_address: str = "127.0.0.1:9090"
    """The gateway's Prometheus page. CONCH_METRICS_ADDRESS."""
    triton_address: str = "127.0.0.1:8001"
    """Triton's gRPC. CONCH_TRITON_ADDRESS."""
    triton_http_port: int = 8000
    """CONCH_TRITON_HTTP_PORT."""
    triton_metrics_port: int = 8002
    """CONCH_TRITON_METRICS_PORT."""
    triton_env: Path | None = None
    """Triton's own Python environment. Default: `home`/triton. CONCH_TRITON_ENV."""

    routes_file: Path | None = None
    """The gateway's routes. Default: `home`/routes.json. CONCH_ROUTES_FILE."""

    def resolved_routes(self) -> Path:
        """Returns the path of the gateway's routes file."""
        return self.routes_file or self.resolved_home() / "routes.json"

    def resolved_triton_env(self) -> Path:
        """Returns Triton's own environment as an absolute path."""
        return (self.triton_env or self.resolved_home() / "triton").expanduser().absolute()

    def shifted(self, offset: int) -> "CliSettings":
        """Returns the same settings with every port moved up by `offset`."""
        return self.model_copy(update={name: _shift(getattr(self, name), offset) for name in ADDRESSES})

    def addresses(self) -> dict[str, str | int]:
        """Returns what the state file remembers and every service's environment says."""
        return {name: getattr(self, name) for name in ADDRESSES}

    def listeners(self) -> dict[str, str]:
        """Returns name -> host:port of everything that listens once the services are up."""
        triton_host = self.triton_address.rpartition(":")[0]
        return {
            "gateway": self.gateway_address,
            "trainer": self.trainer_address,
            "converter": self.converter_address,
            "metrics": self.metrics_address,
            "triton": self.triton_address,
            "triton http": f"{triton_host}:{self.triton_http_port}",
            "triton metrics": f"{triton_host}:{self.triton_metrics_port}",
        }


def read() -> CliSettings:
    """Returns the settings, with the addresses of the last `conch up` where the environment names none."""
    settings = CliSettings()
    up = state.read(settings.resolved_home())
    chosen = up.addresses if up else {}
    update = {k: v for k, v in chosen.items() if k in ADDRESSES and k not in settings.model_fields_set}
    return settings.model_copy(update=update)


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Returns this process's environment with `extra` on top."""
    return {**os.environ, **extra}


def _shift(address: str | int, offset: int) -> str | int:
    if isinstance(address, int):
        return address + offset if address else 0
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + offset}"
