"""Holds a converted graph against the trained model on held-out examples.

Knows batches, padding and verdicts; which figures there are and what they may be is the task's.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers

from conch.v1 import conversion_pb2, job_pb2
from services import storage
from services.converter import runtimes
from services.converter.checkpoint import Checkpoint
from services.errors import NotReady
from services.tasks import Encoded, Facts, Task, TensorSpec
from services.tasks.encoding import Encoder, Tokens, pad
from services.tasks.example import grouped
from services.tasks.golden import golden_answers
from services.tasks.tensors import Answer, Array, Row, row_of

Batch = dict[str, Array]

_BATCH_ROWS = 16
# Batches are padded to a multiple of this, as the gateway pads to its buckets.
_LENGTH_STEP = 32
# Every 8th row goes alone and unpadded: batch 1 takes other kernels than batch 16.
_SINGLE_EVERY = 8
_GOLDEN_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Plan:
    """Held-out examples as the calls that answer them; `batches[k]` holds the windows `members[k]`.

    Most windows lie in padded batches of like length, some alone.
    """

    task: Task
    facts: Facts
    encoded: list[Encoded]
    members: list[list[int]]
    batches: list[Batch]

    @property
    def windows(self) -> list[Tokens]:
        """All windows of all examples, in order."""
        return [window for one in self.encoded for window in one.windows]


@dataclass(frozen=True)
class Held:
    """Held-out examples with the trained model's answers."""

    plan: Plan
    reference: list[Answer]


def hold(
    source: Checkpoint, inputs: Sequence[TensorSpec], *, num_examples: int, check: Callable[[], None]
) -> Held:
    """Returns up to `num_examples` held-out examples with the answers of the trained model.

    `check` is called between batches and may raise to stop.
    """
    plan = _planned(source, source.encode(source.sample(num_examples)), inputs)
    return Held(plan, _reference(source, plan, check))


def run_batches(
    plan: Plan, run: runtimes.Run, check: Callable[[], None], *, workers: int = 1
) -> list[Answer]:
    """Returns the answer to each example of the plan; `workers` batches run at once."""

    def checked(batch: Batch) -> dict[str, Array]:
        check()
        return run(batch)

    windows, rows = plan.windows, dict[int, Row]()
    with ThreadPoolExecutor(workers) as pool:
        for members, outputs in zip(plan.members, pool.map(checked, plan.batches), strict=True):
            for place, i in enumerate(members):
                rows[i] = row_of(outputs, place, len(windows[i]), plan.task.outputs)
    return grouped(plan.encoded, (rows[i] for i in range(len(windows))))


def torch_runner(model: transformers.PreTrainedModel, outputs: Sequence[TensorSpec]) -> runtimes.Run:
    """Returns a function that answers with the trained model itself, fp32."""

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            answer = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return {spec.name: answer[spec.name].numpy() for spec in outputs}

    return run


def judge(
    target: conversion_pb2.Target,
    held: Held,
    *,
    folder: Path,
    limits: Mapping[str, float],
    check: Callable[[], None],
) -> job_pb2.Verdict:
    """Returns the verdict on `target`'s file in `folder`; `limits` override the task's own by name."""
    plan = held.plan
    form = plan.task.form_of(target.runtime)
    assert form is not None, "validation lets no other runtime through"
    path = folder / form.file
    candidate = run_batches(plan, runtimes.open_graph(path, target.runtime), check)
    values = plan.task.compare(plan.encoded, held.reference, candidate, plan.facts)
    return verdict(target, plan.task, values, [form.file], len(plan.encoded), folder=folder, limits=limits)


def verdict(
    target: conversion_pb2.Target,
    task: Task,
    values: Mapping[str, float],
    files: Sequence[str],
    num_examples: int,
    *,
    folder: Path,
    limits: Mapping[str, float],
) -> job_pb2.Verdict:
    """Returns the verdict that figures on `num_examples` amount to, bound to `files` of the version."""
    allowed = {**_attainable(task, target.precision, num_examples), **limits}
    figures = [_figure(name, value, allowed[name]) for name, value in values.items()]
    return job_pb2.Verdict(
        runtime=target.runtime,
        precision=target.precision,
        files={name: storage.sha256_of(folder / name) for name in files},
        passed=all(figure.passed for figure in figures),
        figures=figures,
        num_examples=num_examples,
    )


def check_golden(source: Checkpoint, inputs: Sequence[TensorSpec]) -> None:
    """Raises NotReady unless the checkpoint's weights answer its golden examples as recorded, within 1e-3."""
    examples, wanted = golden_answers(source.golden.examples)
    run = torch_runner(source.model, source.task.outputs)
    for encoded, want in zip(source.encode(examples), wanted, strict=True):
        got = [_alone(run, window, source, inputs) for window in encoded.windows]
        if len(got) != len(want):
            raise golden_mismatch(f"{len(want)} windows are recorded, {len(got)} are read")
        for name in (spec.name for spec in source.task.outputs):
            for ours, recorded in zip(got, want, strict=True):
                _check_tensor(name, ours[name], recorded.get(name))


def _alone(run: runtimes.Run, window: Tokens, source: Checkpoint, inputs: Sequence[TensorSpec]) -> Row:
    outputs = run(batch_of([window], source.encoder, inputs, step=1))
    return row_of(outputs, 0, len(window), source.task.outputs)


def _check_tensor(name: str, got: Array, want: Array | None) -> None:
    if want is not None and got.shape == want.shape:
        if np.allclose(got, want, rtol=1e-3, atol=_GOLDEN_TOLERANCE):
            return
        raise golden_mismatch(f"{name} differs by up to {np.abs(got - want).max():.3g}")
    raise golden_mismatch(f"{name} differs in shape")


def golden_mismatch(why: str) -> NotReady:
    """Returns the error of a checkpoint whose golden examples are not its own."""
    return NotReady(f"golden.json is not of these weights: {why}", reason="GOLDEN_MISMATCH")


def _attainable(task: Task, precision: job_pb2.Precision.ValueType, num_examples: int) -> dict[str, float]:
    """Returns the task's limits; one example is always allowed to differ, however few there are.

    Among 40 examples one tie that tips over is a rate of 0.025 and says nothing about the graph.
    """
    limits = task.limits(precision)
    return {
        name: max(limit, 1 / num_examples) if name in task.rates else limit for name, limit in limits.items()
    }


def _reference(source: Checkpoint, plan: Plan, check: Callable[[], None]) -> list[Answer]:
    """Returns the trained model's own answers, one batch a core at a time.

    torch's threads wait for each other at every operator, and spin while they do: on two busy cores 200
    reviews through MiniLM took 23 CPU seconds that way and 11 this way.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run = torch_runner(source.model, source.task.outputs)
        return run_batches(plan, run, check, workers=threads)
    finally:
        torch.set_num_threads(threads)


def _planned(source: Checkpoint, encoded: list[Encoded], inputs: Sequence[TensorSpec]) -> Plan:
    windows = [window for one in encoded for window in one.windows]
    order = sorted(range(len(windows)), key=lambda i: len(windows[i]))
    alone = [[i] for i in order[::_SINGLE_EVERY]]
    together = _chunks([i for n, i in enumerate(order) if n % _SINGLE_EVERY])
    batches = [batch_of([windows[i] for i in rows], source.encoder, inputs, step=1) for rows in alone]
    batches += [
        batch_of([windows[i] for i in rows], source.encoder, inputs, step=_LENGTH_STEP) for rows in together
    ]
    return Plan(source.task, source.facts, encoded, alone + together, batches)


def _chunks(rows: Sequence[int]) -> list[list[int]]:
    return [list(rows[start : start + _BATCH_ROWS]) for start in range(0, len(rows), _BATCH_ROWS)]


def _figure(name: str, value: float, limit: float) -> job_pb2.Figure:
    return job_pb2.Figure(name=name, value=value, limit=limit, passed=value <= limit)


def batch_of(rows: Sequence[Tokens], encoder: Encoder, inputs: Sequence[TensorSpec], *, step: int) -> Batch:
    """Returns `rows` as the model's inputs `(row, length)`, padded to a multiple of `step` tokens."""
    longest = max(len(row) for row in rows)
    length = min(-(-longest // step) * step, encoder.max_length)
    tensors = pad(rows, length, encoder.pad_id)
    return {spec.name: tensors[spec.name].astype(spec.dtype) for spec in inputs}
