"""Which runtime this machine's Triton gets: measured once for each CPU and set of routed versions.

Knows certificates and where the answer is remembered (CONCH_HOME/run/runtime.json); how to measure is
known in services.triton.measure.
"""

import hashlib
import json
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import TYPE_CHECKING

from conch.v1 import job_pb2, models_pb2
from services import storage
from services.cli.routed import routed_versions
from services.errors import ServiceError
from services.repository import certificates, versions
from services.tasks import find_task
from services.tasks.forms import ENCODER_FORMS
from services.triton import measure
from services.triton.environment import Environment

if TYPE_CHECKING:
    from services.cli.settings import CliSettings

_ONNXRUNTIME, _OPENVINO = "onnxruntime", "openvino"
_MEASURED_VERSIONS = 3
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Choice:
    """A runtime and why it was chosen, in a few words."""

    runtime: str
    reason: str


def choose(requested: str, settings: "CliSettings") -> Choice:
    """Returns the runtime asked for; for "auto" the faster one that all routed versions are certified for.

    May take seconds, to measure. Never raises: what cannot be found out speaks for onnxruntime.
    """
    if requested != "auto":
        return Choice(requested, "asked for")
    try:
        return _fitting(settings, [_read(settings, *routed) for routed in routed_versions(settings)])
    except (ServiceError, RuntimeError, OSError, ValueError) as error:
        return Choice(_ONNXRUNTIME, f"could not measure: {error}")


def decide(ratio: float) -> Choice:
    """Returns the runtime to serve with for openvino's speed over onnxruntime's."""
    runtime = _OPENVINO if ratio >= measure.WORTHWHILE else _ONNXRUNTIME
    return Choice(runtime, f"openvino measured at {ratio:.1f}x onnxruntime here")


def _fitting(settings: "CliSettings", routed: Sequence[models_pb2.Version]) -> Choice:
    if refusal := _refusal(routed, _OPENVINO):
        return Choice(_ONNXRUNTIME, refusal)
    if refusal := _refusal(routed, _ONNXRUNTIME):
        return Choice(_OPENVINO, refusal)
    return _remembered(settings, routed)


def _refusal(routed: Sequence[models_pb2.Version], runtime: str) -> str:
    """Returns why the versions cannot all be served by `runtime`, empty if they can."""
    for version in routed:
        try:
            certificates.check(version, runtime)
        except ServiceError as error:
            return error.message
    return ""


def _remembered(settings: "CliSettings", routed: Sequence[models_pb2.Version]) -> Choice:
    path = settings.resolved_home() / "run" / "runtime.json"
    key = hashlib.sha256("\n".join([_cpu(), *sorted(v.digest for v in routed)]).encode()).hexdigest()
    memory = _recall(path)
    if key not in memory:
        memory[key] = asdict(decide(_measure(settings, routed[:_MEASURED_VERSIONS])))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(memory, indent=1), encoding="utf-8")
    return Choice(**memory[key])


def _recall(path: Path) -> dict[str, dict[str, str]]:
    try:
        memory: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return memory


def _measure(settings: "CliSettings", routed: Sequence[models_pb2.Version]) -> float:
    python = Environment(settings.resolved_triton_env()).python
    differing = [version for version in routed if _differs(version)]
    if not differing:
        return measure.synthetic_ratio(python)
    ratios = []
    for version in differing:
        folder = storage.local_path(version.uri)
        if folder is None:
            raise RuntimeError(f"{version.uri} is not on this machine")
        graphs = {form.backend: folder / form.file for form in ENCODER_FORMS}
        ratios.append(measure.ratio(python, graphs[_ONNXRUNTIME], graphs[_OPENVINO]))
    return geometric_mean(ratios)


def _differs(version: models_pb2.Version) -> bool:
    """Returns whether the two runtimes answer for a version in forms of their own."""
    task = find_task(version.manifest.checkpoint.task)
    return task.form_in(job_pb2.RUNTIME_ONNXRUNTIME) is not task.form_in(job_pb2.RUNTIME_OPENVINO)


def _read(settings: "CliSettings", model: str, version: int) -> models_pb2.Version:
    return versions.read_version(settings.resolved_repository_uri(), model, version)


def _cpu() -> str:
    """Returns the processor's name, as far as it can be known."""
    with suppress(OSError):
        for line in _CPUINFO.read_text(encoding="utf-8").split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
