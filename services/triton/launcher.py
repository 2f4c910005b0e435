"""The command line, environment and backend directory of the embedded Triton.

Knows tritonserver's options; knows nothing about models.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from services.errors import NotReady
from services.triton.environment import Environment
from services.triton.settings import TritonSettings

_BACKENDS = Path(__file__).with_name("backends")
_OURS = ("onnxruntime", "openvino", "openvino_generation", "seq2seq")
_CONTROL: dict[str, dict[str, object]] = {
    "explicit": {"model-control-mode": "explicit"},
    # As a pod does. A model that does not come up keeps the server from being ready, which stops a
    # rollout, but not the models beside it from answering.
    "none": {"model-control-mode": "none", "strict-readiness": "true", "exit-on-error": "false"},
}


def prepare_backends(folder: Path, environment: Environment) -> Path:
    """Makes `folder` a backend directory of Triton's python backend and ours; returns it.

    Each of ours becomes a folder of links: what its own folder holds and the modules that all share. May be
    called again, also by two processes at once.
    """
    if not environment.server.is_file():
        raise NotReady(
            f"no Triton in {environment.root}: run `python -m services.triton.install`",
            reason="TRITON_NOT_INSTALLED",
        )
    folder.mkdir(parents=True, exist_ok=True)
    _link(folder / "python", environment.python_backend)
    for ours in _OURS:
        (folder / ours).mkdir(exist_ok=True)
        for source in (*_BACKENDS.glob("*.py"), *(_BACKENDS / ours).glob("[!_]*")):
            _link(folder / ours / source.name, source)
    return folder


def command(settings: TritonSettings, *, backends: Path) -> list[str]:
    """Returns tritonserver's argv for `settings`."""
    environment = Environment(settings.resolved_env())
    host, _, port = settings.triton_address.rpartition(":")
    options = {
        "model-repository": settings.resolved_staged(),
        "backend-directory": backends,
        "cache-directory": environment.caches,
        **_CONTROL[settings.triton_control],
        "exit-timeout-secs": settings.triton_exit_timeout_seconds,
        "allow-gpu-metrics": "false",
        "pinned-memory-pool-byte-size": 0,
        "log-verbose": 0,
        "log-format": "ISO8601",
        "grpc-address": host,
        "grpc-port": port,
        # Gateways ping idle channels so that a Triton that vanished is noticed; without leave for
        # that Triton answers the third ping with GOAWAY.
        "grpc-keepalive-permit-without-calls": 1,
        "grpc-http2-min-recv-ping-interval-without-data": 5000,
    }
    return [str(environment.server), *_flags(options | _optional(settings, host))]


def process_environment(environment: Environment, inherited: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment variables that Triton runs with, its own `bin` first on PATH."""
    path = os.pathsep.join([str(environment.bin), inherited.get("PATH", os.defpath)])
    # Another environment's PYTHONPATH or PYTHONHOME would bring its numpy into the stubs.
    kept = {k: v for k, v in inherited.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {"PATH": path, "VIRTUAL_ENV": str(environment.root), "PYTHONDONTWRITEBYTECODE": "1"}


def run_folder(settings: TritonSettings) -> Path:
    """Returns an empty folder to run in: python stubs import from the current one first."""
    folder = settings.resolved_home() / "triton-run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _optional(settings: TritonSettings, host: str) -> dict[str, object]:
    http, metrics = settings.triton_http_port, settings.triton_metrics_port
    options: dict[str, object] = {
        "allow-http": str(http > 0).lower(),
        "allow-metrics": str(metrics > 0).lower(),
    }
    if http:
        options |= {"http-address": host, "http-port": http}
    if metrics:
        options |= {"metrics-address": host, "metrics-port": metrics}
    if settings.runtime != "onnxruntime":
        options["model-config-name"] = settings.runtime
    if settings.triton_log_file is not None:
        options["log-file"] = settings.triton_log_file
    return options


def _flags(options: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.symlink_to(target)
    fresh.replace(link)
