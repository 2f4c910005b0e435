"""Fills in what a training spec leaves open and refuses what can never succeed, before anything runs.

Knows the ranges that training.proto states; knows nothing about the content of the data.
"""

import os

from conch.v1 import job_pb2, training_pb2
from services import storage
from services.jobs import sources
from services.jobs.placement import ONE_MACHINE, Placement
from services.jobs.violations import Violations
from services.tasks import TASKS, find_task
from services.trainer.defaults import with_defaults

_DATASET = "spec.dataset"
_HYPER = "spec.hyperparameters"
_PRECISIONS = (job_pb2.PRECISION_FP32, job_pb2.PRECISION_BF16)


def complete(spec: training_pb2.TrainingSpec) -> training_pb2.TrainingSpec:
    """Returns the spec with defaults filled in and local paths made absolute; checks nothing."""
    full = with_defaults(spec)
    full.base_model = _absolute_folder(spec.base_model)
    full.dataset.train_uri = sources.absolute(spec.dataset.train_uri)
    full.num_nodes = spec.num_nodes or 1
    full.dataset.validation_uri = sources.absolute(spec.dataset.validation_uri)
    return full


def check(spec: training_pb2.TrainingSpec, placement: Placement = ONE_MACHINE) -> None:
    """Raises InvalidRequest that names every field of a completed spec that can never succeed."""
    found = Violations()
    with found.gathered():
        find_task(spec.task, field="spec.task")
    found.within("spec.max_attempts", spec.max_attempts, 1, 10)
    placement.check_profile(found, spec.profile)
    placement.check_nodes(found, spec.num_nodes)
    _check_base_model(found, spec.base_model)
    _check_dataset(found, spec)
    _check_task_spec(found, spec)
    _check_hyperparameters(found, spec.hyperparameters)
    found.raise_any()


def _absolute_folder(base_model: str) -> str:
    """Returns a local folder as an absolute path; a hub id or URI as it is."""
    path = sources.absolute(base_model)
    return path if base_model and os.path.isdir(path) else base_model


def _check_base_model(found: Violations, base_model: str) -> None:
    field = "spec.base_model"
    if not found.require(field, base_model):
        return
    with found.gathered():
        storage.check_uri(base_model, field=field)
    looks_local = base_model.startswith(("file://", "/", ".", "~"))
    path = storage.local_path(sources.absolute(base_model)) if looks_local else None
    if path is not None and not os.path.isdir(path):
        found.add(field, f"there is no folder {base_model}", reason="UNREADABLE_URI")


def _check_dataset(found: Violations, spec: training_pb2.TrainingSpec) -> None:
    dataset = spec.dataset
    if found.require(f"{_DATASET}.train_uri", dataset.train_uri):
        with found.gathered():
            sources.check_file(dataset.train_uri, field=f"{_DATASET}.train_uri")
    if dataset.validation_uri:
        with found.gathered():
            sources.check_file(dataset.validation_uri, field=f"{_DATASET}.validation_uri")
    if dataset.format not in training_pb2.Dataset.Format.values():
        found.add(f"{_DATASET}.format", f"there is no format {dataset.format}")
    found.within(f"{_DATASET}.validation_fraction", dataset.validation_fraction, 0, 0.5, bounds="(]")
    _check_columns(found, spec)


def _check_columns(found: Violations, spec: training_pb2.TrainingSpec) -> None:
    field = f"{_DATASET}.columns"
    roles = _roles(spec.task)
    for role, name in spec.dataset.columns.items():
        if roles and role not in roles:
            found.add(field, f"{spec.task} has no role {role!r}; it has {', '.join(roles)}")
        if not name:
            found.add(field, f"the column of role {role!r} has no name")


def _roles(task: str) -> list[str]:
    return [column.role for column in TASKS[task].columns] if task in TASKS else []


def _check_task_spec(found: Violations, spec: training_pb2.TrainingSpec) -> None:
    kind = spec.task_spec.WhichOneof("kind")
    if spec.task not in TASKS:
        return
    if kind and kind != spec.task.replace("-", "_"):
        found.add("spec.task_spec", f"holds {kind}, but the task is {spec.task}")
    for problem in TASKS[spec.task].check_spec(spec.task_spec):
        found.add(problem.field, problem.description)


def _check_hyperparameters(found: Violations, given: training_pb2.Hyperparameters) -> None:
    found.within(f"{_HYPER}.num_epochs", given.num_epochs, 0, 100, bounds="(]")
    found.within(f"{_HYPER}.learning_rate", given.learning_rate, 0, 1, bounds="(]")
    found.within(f"{_HYPER}.batch_size", given.batch_size, 1, 1024)
    found.within(f"{_HYPER}.gradient_accumulation_steps", given.gradient_accumulation_steps, 1, 1024)
    found.within(f"{_HYPER}.warmup_ratio", given.warmup_ratio, 0, 1, bounds="[)")
    found.within(f"{_HYPER}.weight_decay", given.weight_decay, 0, 1)
    found.within(f"{_HYPER}.max_length", given.max_length, 8, 8192)
    found.within(f"{_HYPER}.early_stopping_patience", given.early_stopping_patience, 0, 100)
    found.within(f"{_HYPER}.evaluations_per_epoch", given.evaluations_per_epoch, 1, 100)
    found.within(f"{_HYPER}.num_threads", given.num_threads, 0, 256)
    if given.precision not in _PRECISIONS:
        found.add(f"{_HYPER}.precision", "must be PRECISION_FP32 or PRECISION_BF16")
