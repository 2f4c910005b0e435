"""`conch stage`: fills the repository that a pod's Triton reads, before that Triton starts."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli import output, pods
from services.cli.output import AsJson

if TYPE_CHECKING:  # pydantic and numpy cost most of the time of `conch --help`
    from services.cluster.events import Event
    from services.errors import ServiceError
    from services.repository.choosing import Pool
    from services.repository.pods import StagedModel
    from services.repository.settings import StageSettings

STATUS = "stage.json"
"""Says in the staged folder what was staged; Triton passes over what is no folder."""

Record = dict[str, Any]


def stage(
    pool: Annotated[str | None, typer.Option(help="The pod's pool. CONCH_POOL.")] = None,
    routes: Annotated[Path | None, typer.Option(help="Routes as JSON. CONCH_ROUTES_FILE.")] = None,
    staged: Annotated[Path | None, typer.Option(help="Folder to fill. CONCH_STAGED.")] = None,
    repository: Annotated[
        str | None, typer.Option(help="The model repository. CONCH_REPOSITORY_URI.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="onnxruntime, openvino, tensorrt or vllm. CONCH_RUNTIME.")
    ] = None,
    compute_capability: Annotated[
        str | None, typer.Option(help="Of the GPU; auto asks nvidia-smi. CONCH_COMPUTE_CAPABILITY.")
    ] = None,
    tensorrt_version: Annotated[
        str | None, typer.Option(help="Of Triton's image; auto: not known. CONCH_TENSORRT_VERSION.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring what a pod of a pool serves into its folder: the init container of a Triton pod.

    Stages each version that the routes of the pool name (weight 0 and shadows too), digests and certificates
    checked, of each only the files that the runtime reads. What a killed run brought is kept.

    A version that is missing, damaged or not certified is left out, with a sentence and a Kubernetes event;
    the exit code is 0 all the same. A model of which no version is left keeps an empty place: Triton's
    strict readiness holds the pod back, so that a rollout stops there, and the other models answer. Where
    no TensorRT plan fits the pod, the model is served by its certified ONNX twin. A store that does not
    answer is asked again for two minutes; then the exit code is 5, and Kubernetes starts the container anew.

    Example: conch stage --pool cpu --routes routes.json --staged /staged --runtime openvino
    """
    from services.repository.settings import StageSettings

    given = {
        "pool": pool,
        "routes_file": routes,
        "staged": staged,
        "repository_uri": repository,
        "runtime": runtime,
        "compute_capability": compute_capability,
        "tensorrt_version": tensorrt_version,
    }
    settings = StageSettings(**{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]  # checked by pydantic
    pods.log_to_stderr()
    with pods.explained(settings.termination_log):
        record = _run(settings)
    output.print_result(record, as_json=as_json, view=_view(record))


def _run(settings: "StageSettings") -> Record:
    from services import storage
    from services.errors import BackendUnavailable

    pool = _pool(settings)
    try:
        models = _stage(settings, pool)
    except BackendUnavailable as error:
        _post(settings, [_event("StoreUnavailable", error.message)])
        raise
    record = _record(settings, pool, models)
    storage.write_bytes(str(settings.staged / STATUS), (json.dumps(record, indent=2) + "\n").encode())
    _post(settings, list(_events(models)))
    return record


def _pool(settings: "StageSettings") -> "Pool":
    from services.repository.choosing import Pool
    from services.repository.plans import Device
    from services.triton import gpus

    if settings.runtime != "tensorrt":
        return Pool(settings.runtime, allow_uncertified=settings.allow_uncertified)
    gpu, tensorrt = settings.compute_capability, settings.tensorrt_version
    device = Device(
        compute_capability=gpus.compute_capability() if gpu == "auto" else gpu,
        tensorrt_version="" if tensorrt == "auto" else tensorrt,
    )
    output.remark(f"this pod has {device}")
    return Pool(settings.runtime, device, settings.allow_uncertified)


def _stage(settings: "StageSettings", pool: "Pool") -> "list[StagedModel]":
    from google.protobuf import json_format

    from conch.v1 import models_pb2
    from services.errors import InvalidRequest
    from services.repository.patience import patiently
    from services.repository.pods import stage_pool

    try:
        text = pods.read_text(settings.routes_file)
        routes = json_format.Parse(text, models_pb2.Routes(), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise InvalidRequest.field(settings.routes_file.name, f"is no conch.v1.Routes: {error}") from error
    return patiently(
        lambda: stage_pool(
            routes,
            settings.pool,
            pool,
            repository_uri=settings.resolved_repository_uri(),
            staged=settings.staged.absolute(),
            say=output.remark,
        ),
        seconds=settings.store_patience_seconds,
        say=output.remark,
    )


def _record(settings: "StageSettings", pool: "Pool", models: "list[StagedModel]") -> Record:
    """Returns what the status file and --json say."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "pool": settings.pool,
        "runtime": pool.runtime,
        "compute_capability": pool.device.compute_capability,
        "tensorrt_version": pool.device.tensorrt_version,
        "models": [
            {
                "model": one.model,
                "runtime": one.runtime,
                "versions": list(one.versions),
                "fallback": one.fallback,
                "left_out": [_left_out(number, error) for number, error in one.left_out.items()],
            }
            for one in models
        ],
    }


def _left_out(number: int, error: "ServiceError") -> Record:
    return {"version": number, "reason": error.reason, "message": error.message}


def _events(models: "list[StagedModel]") -> "Iterator[Event]":
    for one in models:
        if one.fallback:
            yield _event("PlanUnfit", f"{one.model}: {one.fallback}")
        for number, error in one.left_out.items():
            yield _event("VersionLeftOut", f"{one.model}@{number} is left out: {error.message}")
        if not one.versions:
            yield _event("ModelLeftOut", f"no version of {one.model} could be staged: this pod is not ready")


def _event(reason: str, message: str) -> "Event":
    from services.cluster.events import Event

    return Event(reason, message)


def _post(settings: "StageSettings", events: "list[Event]") -> None:
    from services.cluster.events import Pod, post

    for event in events:
        output.remark(event.message)
    pod = Pod(settings.pod_name, settings.pod_namespace, settings.pod_uid, "initContainers{stage}")
    post(events, pod)


def _view(record: Record) -> str:
    models = record["models"]
    held = sum(len(one["versions"]) for one in models)
    left_out = sum(len(one["left_out"]) for one in models)
    beside = f"; left out: {left_out}" if left_out else ""
    what = f"{pods.counted(held, 'version')} of {pods.counted(len(models), 'model')}"
    return f"staged {what} for the pool {record['pool']}{beside}"
