"""Fills in what a conversion spec leaves open and refuses what can never succeed, before anything runs.

Knows the ranges that conversion.proto states; knows nothing about ONNX.
"""

import re
from contextlib import suppress

from conch.v1 import conversion_pb2, job_pb2, models_pb2
from services import storage
from services.errors import InvalidRequest, NotFound, NotReady, ServiceError
from services.jobs import sources
from services.jobs.placement import ONE_MACHINE, Placement
from services.jobs.violations import Violations
from services.tasks import Task, find_task

_MODEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_CHECKPOINT = "spec.checkpoint_uri"
_TARGETS = "spec.targets"


def complete(spec: conversion_pb2.ConversionSpec) -> conversion_pb2.ConversionSpec:
    """Returns the spec with defaults filled in and a local path made absolute; checks nothing."""
    full = conversion_pb2.ConversionSpec()
    full.CopyFrom(spec)
    full.checkpoint_uri = sources.absolute(spec.checkpoint_uri)
    full.num_parity_examples = spec.num_parity_examples or 500
    full.max_attempts = spec.max_attempts or 3
    with suppress(ServiceError):  # what is wrong with the checkpoint is said by `check`
        task = find_task(_read_checkpoint(full.checkpoint_uri).task, field=_CHECKPOINT)
        _complete_targets(full, task)
    return full


def check(spec: conversion_pb2.ConversionSpec, placement: Placement = ONE_MACHINE) -> None:
    """Raises InvalidRequest that names every field of a completed spec that can never succeed.

    Reads the checkpoint's manifest. Raises BackendUnavailable if its store does not answer.
    """
    found = Violations()
    if not _MODEL.fullmatch(spec.model):
        found.add("spec.model", "must be 1 to 63 of [a-z0-9_-], starting with a letter")
    found.within("spec.num_parity_examples", spec.num_parity_examples, 32, 100_000)
    found.within("spec.max_attempts", spec.max_attempts, 1, 10)
    placement.check_profile(found, spec.profile)
    with found.gathered():
        task = find_task(_read_checkpoint(spec.checkpoint_uri).task, field=_CHECKPOINT)
        _check_targets(found, spec, task)
        _check_limits(found, spec, task)
    found.raise_any()


def _complete_targets(spec: conversion_pb2.ConversionSpec, task: Task) -> None:
    if not spec.targets:
        forms = (form for form in task.forms if form.is_default)
        spec.targets.extend(conversion_pb2.Target(runtime=form.runtime) for form in forms)
    for target in spec.targets:
        if form := task.form_of(target.runtime):
            target.precision = target.precision or form.precisions[0]


def _check_targets(found: Violations, spec: conversion_pb2.ConversionSpec, task: Task) -> None:
    runtimes = [target.runtime for target in spec.targets]
    if len(set(runtimes)) < len(runtimes):
        found.add(_TARGETS, "at most one target a runtime")
    forms = [form for runtime in runtimes if (form := task.form_of(runtime))]
    if forms and not any(form.pools for form in forms):
        found.add(_TARGETS, f"none of them can serve {task.id}")
    for i, target in enumerate(spec.targets):
        form = task.form_of(target.runtime)
        if form is None:
            names = " or ".join(job_pb2.Runtime.Name(form.runtime) for form in task.forms)
            found.add(f"{_TARGETS}[{i}].runtime", f"must be {names} for {task.id}")
        elif target.runtime == job_pb2.RUNTIME_TENSORRT:
            found.add(f"{_TARGETS}[{i}].runtime", "no builder of TensorRT plans is installed here")
        elif target.precision not in form.precisions:
            names = " or ".join(job_pb2.Precision.Name(p) for p in form.precisions)
            runtime = job_pb2.Runtime.Name(target.runtime)
            found.add(f"{_TARGETS}[{i}].precision", f"Triton's {runtime} can only be asked for {names}")


def _check_limits(found: Violations, spec: conversion_pb2.ConversionSpec, task: Task) -> None:
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
