"""The data of a run: read, checked as a whole, split and sampled before anything is trained.

Knows the order in which that happens; how is in `data` (rows) and `splits` (who goes where).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conch.v1 import training_pb2
from services.errors import InvalidRequest
from services.jobs.reporting import Reporter
from services.tasks import Example, Facts, Task
from services.tasks.reading import TRAIN, VALIDATION
from services.trainer.data import Split, read_split
from services.trainer.splits import cut_validation, find_duplicates, find_leaks, sample


@dataclass(frozen=True)
class Splits:
    """What is trained on, what is held out, and what the model is to know."""

    train: list[Example]
    validation: list[Example]
    facts: Facts


def load(spec: training_pb2.TrainingSpec, task: Task, *, scratch: Path, report: Reporter) -> Splits:
    """Returns the splits of a spec whose defaults are filled in; reports warnings.

    Raises one InvalidRequest with everything that is wrong with the data, BackendUnavailable.
    """
    train = read_split(spec.dataset, task, spec.task_spec, name=TRAIN, scratch=scratch)
    held_out = Split()
    if spec.dataset.validation_uri:
        held_out = read_split(spec.dataset, task, spec.task_spec, name=VALIDATION, scratch=scratch)
    facts = task.settle(train.examples, spec.task_spec)
    _check(train, held_out, task, facts)
    for warning in find_duplicates(train.examples):
        report.event(warning=warning)
    return _sized(spec, task, train.examples, held_out.examples, facts)


def digest(examples: Sequence[Example]) -> str:
    """Returns the sha256 over the examples as read, hex: one JSON array a line."""
    state = hashlib.sha256()
    for e in examples:
        state.update(json.dumps([e.text, e.text_pair, e.target], ensure_ascii=False).encode() + b"\n")
    return state.hexdigest()


def _check(train: Split, held_out: Split, task: Task, facts: Facts) -> None:
    problems = [*train.problems, *held_out.problems]
    if train.examples:
        problems += task.find_problems(train.examples, held_out.examples, facts)
    problems += find_leaks(train.examples, held_out.examples)
    if problems:
        raise InvalidRequest(*problems, reason="BAD_DATA")


def _sized(
    spec: training_pb2.TrainingSpec,
    task: Task,
    train: list[Example],
    validation: list[Example],
    facts: Facts,
) -> Splits:
    dataset, seed = spec.dataset, spec.hyperparameters.seed
    if not dataset.validation_uri:
        train, validation = cut_validation(train, task, fraction=dataset.validation_fraction, seed=seed)
    limits = {"train": dataset.max_train_examples, "validation": dataset.max_validation_examples}
    sampled = {
        name: sample(found, task, size=limits[name], seed=seed, field=f"spec.dataset.max_{name}_examples")
        for name, found in (("train", train), ("validation", validation))
    }
    return Splits(sampled["train"], sampled["validation"], facts)
