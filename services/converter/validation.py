"""Fills in what a conversion spec leaves open and refuses what can never succeed, before anything runs.

Knows the ranges that conversion.proto states; knows nothing about ONNX.
"""

import re

from conch.v1 import conversion_pb2, job_pb2, models_pb2
from services import storage
from services.errors import InvalidRequest, NotFound, NotReady
from services.jobs import sources
from services.jobs.violations import Violations
from services.tasks import find_task

_MODEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_CHECKPOINT = "spec.checkpoint_uri"
_TARGETS = "spec.targets"
# The first of each is the default. Triton's official openvino backend has no way to ask for fp32
# where the CPU's default is bf16, so a certificate for it would not hold there.
_PRECISIONS = {
    job_pb2.RUNTIME_ONNXRUNTIME: (job_pb2.PRECISION_FP32, job_pb2.PRECISION_INT8),
    job_pb2.RUNTIME_OPENVINO: (job_pb2.PRECISION_BF16,),
}


def complete(spec: conversion_pb2.ConversionSpec) -> conversion_pb2.ConversionSpec:
    """Returns the spec with defaults filled in and a local path made absolute; checks nothing."""
    full = conversion_pb2.ConversionSpec()
    full.CopyFrom(spec)
    full.checkpoint_uri = sources.absolute(spec.checkpoint_uri)
    full.num_parity_examples = spec.num_parity_examples or 500
    full.max_attempts = spec.max_attempts or 3
    if not full.targets:
        full.targets.extend(conversion_pb2.Target(runtime=runtime) for runtime in _PRECISIONS)
    for target in full.targets:
        if target.runtime in _PRECISIONS:
            target.precision = target.precision or _PRECISIONS[target.runtime][0]
    return full


def check(spec: conversion_pb2.ConversionSpec) -> None:
    """Raises InvalidRequest that names every field of a completed spec that can never succeed.

    Reads the checkpoint's manifest. Raises BackendUnavailable if its store does not answer.
    """
    found = Violations()
    if not _MODEL.fullmatch(spec.model):
        found.add("spec.model", "must be 1 to 63 of [a-z0-9_-], starting with a letter")
    found.within("spec.num_parity_examples", spec.num_parity_examples, 32, 100_000)
    found.within("spec.max_attempts", spec.max_attempts, 1, 10)
    _check_targets(found, spec)
    with found.gathered():
        _check_limits(found, spec, _read_checkpoint(spec.checkpoint_uri))
    found.raise_any()


def _check_targets(found: Violations, spec: conversion_pb2.ConversionSpec) -> None:
    runtimes = [target.runtime for target in spec.targets]
    if len(set(runtimes)) < len(runtimes):
        found.add(_TARGETS, "at most one target a runtime")
    for i, target in enumerate(spec.targets):
        if target.runtime not in _PRECISIONS:
            found.add(f"{_TARGETS}[{i}].runtime", "must be RUNTIME_ONNXRUNTIME or RUNTIME_OPENVINO")
        elif target.precision not in _PRECISIONS[target.runtime]:
            names = " or ".join(job_pb2.Precision.Name(p) for p in _PRECISIONS[target.runtime])
            runtime = job_pb2.Runtime.Name(target.runtime)
            found.add(f"{_TARGETS}[{i}].precision", f"Triton's {runtime} can only be asked for {names}")


def _check_limits(
    found: Violations, spec: conversion_pb2.ConversionSpec, checkpoint: models_pb2.CheckpointManifest
) -> None:
    task = find_task(checkpoint.task, field=_CHECKPOINT)
    known = sorted(task.limits(job_pb2.PRECISION_FP32))
    for name, limit in spec.limits.items():
        if name not in known:
            found.add("spec.limits", f"{task.id} has no figure {name!r}; it has {', '.join(known)}")
        found.finite(f"spec.limits[{name}]", limit)


def _read_checkpoint(uri: str) -> models_pb2.CheckpointManifest:
    if not uri:
        raise InvalidRequest.field(_CHECKPOINT, "is required")
    storage.check_uri(uri, field=_CHECKPOINT)
    try:
        manifest, _ = storage.read_manifest(uri)
    except (NotFound, NotReady) as error:
        raise InvalidRequest.field(_CHECKPOINT, error.message, reason=error.reason) from error
    if manifest.WhichOneof("content") != "checkpoint":
        raise InvalidRequest.field(_CHECKPOINT, f"{uri} is no checkpoint", reason="NOT_A_CHECKPOINT")
    return manifest.checkpoint
