"""`conch status`: each process, and the versions that answer. Asks; changes nothing."""

from typing import TYPE_CHECKING

import grpc
import typer
from rich.console import Group, RenderableType

from conch.v1 import models_pb2
from services.cli import output, programs, state, views
from services.cli.models import all_models
from services.cli.output import AsJson
from services.cli.state import UpState
from services.cli.stubs import Stubs, connect

if TYPE_CHECKING:
    from services.cli.settings import CliSettings


def status(as_json: AsJson = False) -> None:
    """Show each process and the versions that answer; exit code 1 unless all are healthy.

    Example: conch status --json
    """
    stubs = connect()
    settings = stubs.settings
    current = state.read(settings.resolved_home())
    if current is None or not current.alive():
        left = [child.name for child in current.children if _lives(child)] if current else []
        output.print_result({"up": False, "leftOver": left}, as_json=as_json, view=_down_view(left))
        raise typer.Exit(1)
    processes = [_process_record(child, settings) for child in current.children]
    versions = _served_versions(stubs)
    record = up_record(current) | {"processes": processes, "versions": versions}
    output.print_result(record, as_json=as_json, view=_status_view(current, processes, versions))
    if not all(process["healthy"] for process in processes):
        raise typer.Exit(1)


def up_record(current: UpState) -> dict[str, object]:
    """Returns what a set of services that is up says of itself, as JSON names and values."""
    return {
        "up": True,
        "phase": current.phase,
        "runtime": current.runtime,
        "runtimeReason": current.runtime_reason,
        "addresses": {_camel(name): value for name, value in current.addresses.items()},
    }


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _lives(child: state.ChildState) -> bool:
    return child.process is not None and child.process.find() is not None


def _down_view(left: list[str]) -> str:
    if not left:
        return "not up; start with: conch up --detach"
    return f"the supervisor died and left {', '.join(left)}; start again: conch up --detach, stop: conch down"


def _process_record(child: state.ChildState, settings: "CliSettings") -> dict[str, object]:
    process = child.process.find() if child.process else None
    return {
        "name": child.name,
        "phase": child.phase,
        "healthy": process is not None and programs.is_healthy(child.name, settings),
        "pid": process.pid if process else 0,
        "started": child.process.started if process and child.process else 0,
        "restarts": child.restarts,
        "log": child.log,
    }


def _served_versions(stubs: Stubs) -> list[dict[str, object]]:
    """Returns the routed versions as the gateway sees them, nothing if it does not answer."""
    try:
        return [
            _version_record(stubs, model.name, weighted)
            for model in all_models(stubs)
            for weighted in model.route.versions
        ]
    except grpc.RpcError:
        return []


def _version_record(stubs: Stubs, model: str, weighted: models_pb2.WeightedVersion) -> dict[str, object]:
    request = models_pb2.GetVersionRequest(model=model, version=weighted.version)
    found = stubs.models.GetVersion(request).version
    return {
        "model": model,
        "version": weighted.version,
        "weight": weighted.weight,
        "state": models_pb2.Version.State.Name(found.state),
        "reason": found.state_reason,
    }


def _status_view(
    current: UpState, processes: list[dict[str, object]], versions: list[dict[str, object]]
) -> RenderableType:
    lines = views.table("process", "health", "pid", "up for", "restarts", "log")
    for p in processes:
        health = (
            "healthy" if p["healthy"] else str(p["phase"] if p["phase"] != "healthy" else "not answering")
        )
        age = views.since(float(str(p["started"]))) if p["started"] else ""
        lines.add_row(str(p["name"]), health, str(p["pid"] or ""), age, str(p["restarts"]), str(p["log"]))
    served = views.table("model", "version", "weight", "state")
    for v in versions:
        word = f"{str(v['state']).removeprefix('STATE_')} {v['reason']}".strip()
        served.add_row(str(v["model"]), str(v["version"]), str(v["weight"]), word)
    return Group(
        f"runtime {current.runtime} ({current.runtime_reason})", lines, *([served] if versions else [])
    )
