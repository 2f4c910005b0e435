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
from services.converter.checkpoint import Checkpoint, golden_outputs
from services.errors import NotReady
from services.repository import layout
from services.tasks import Outputs, Task, TensorSpec
from services.tasks.base import FloatArray, IntArray
from services.tasks.encoding import Encoder, Tokens, pad

Batch = dict[str, IntArray]

_BATCH_ROWS = 16
# Batches are padded to a multiple of this, as the gateway pads to its buckets.
_LENGTH_STEP = 32
# Every 8th row goes alone and unpadded: batch 1 takes other kernels than batch 16.
_SINGLE_EVERY = 8
_GOLDEN_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Held:
    """Held-out examples as tensors, with the trained model's answers. Row i of each is one example."""

    task: Task
    batches: list[Batch]
    targets: IntArray
    reference: Outputs


def hold(
    source: Checkpoint, inputs: Sequence[TensorSpec], *, num_examples: int, check: Callable[[], None]
) -> Held:
    """Returns up to `num_examples` held-out examples with the answers of the trained model.

    They are sorted by length; most lie in padded batches, some alone. `check` is called between batches
    and may raise to stop.
    """
    examples = source.sample(num_examples)
    tokens = encode(source.encoder, [e.text for e in examples], [e.text_pair for e in examples])
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    alone, together = order[::_SINGLE_EVERY], [i for n, i in enumerate(order) if n % _SINGLE_EVERY]
    batches = [batch_of([tokens[i]], source.encoder, inputs, step=1) for i in alone]
    batches += [
        batch_of([tokens[i] for i in rows], source.encoder, inputs, step=_LENGTH_STEP)
        for rows in _chunks(together)
    ]
    targets = source.task.targets([examples[i] for i in (*alone, *together)], source.manifest.labels)
    return Held(source.task, batches, targets, _reference(source, batches, check))


def run_batches(
    batches: Sequence[Batch], run: runtimes.Run, check: Callable[[], None], *, workers: int = 1
) -> Outputs:
    """Returns the outputs of all rows `(row, ...)` in the order of the batches; `workers` run at once."""

    def checked(batch: Batch) -> dict[str, FloatArray]:
        check()
        return run(batch)

    with ThreadPoolExecutor(workers) as pool:
        answers = list(pool.map(checked, batches))
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def torch_runner(model: transformers.PreTrainedModel, outputs: Sequence[TensorSpec]) -> runtimes.Run:
    """Returns a function that answers with the trained model itself, fp32."""

    def run(inputs: Mapping[str, IntArray]) -> dict[str, FloatArray]:
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
    path = folder / layout.served_file(target.runtime)
    candidate = run_batches(held.batches, runtimes.open_graph(path, target.runtime), check)
    values = held.task.compare(held.reference, candidate, held.targets)
    allowed = {**_attainable(held.task, target.precision, len(held.targets)), **limits}
    figures = [_figure(name, value, allowed[name]) for name, value in values.items()]
    return job_pb2.Verdict(
        runtime=target.runtime,
        precision=target.precision,
        file=path.name,
        sha256=storage.sha256_of(path),
        passed=all(figure.passed for figure in figures),
        figures=figures,
        num_examples=len(held.targets),
    )


def check_golden(source: Checkpoint, inputs: Sequence[TensorSpec]) -> None:
    """Raises NotReady unless the checkpoint's weights answer its golden examples as recorded, within 1e-3."""
    golden = source.golden.examples
    tokens = encode(source.encoder, [e.text for e in golden], [e.text_pair for e in golden])
    run = torch_runner(source.model, source.task.outputs)
    answers = [run(batch_of([row], source.encoder, inputs, step=1)) for row in tokens]
    for name, want in golden_outputs(source.golden).items():
        got = np.concatenate([answer[name] for answer in answers])
        if got.shape != want.shape or not np.allclose(got, want, rtol=1e-3, atol=_GOLDEN_TOLERANCE):
            off = f"by up to {np.abs(got - want).max():.3g}" if got.shape == want.shape else "in shape"
            raise NotReady(
                f"golden.json is not of these weights: {name} differs {off}", reason="GOLDEN_MISMATCH"
            )


def _attainable(task: Task, precision: job_pb2.Precision.ValueType, num_examples: int) -> dict[str, float]:
    """Returns the task's limits; one example is always allowed to differ, however few there are.

    Among 40 examples one tie that tips over is a rate of 0.025 and says nothing about the graph.
    """
    limits = task.limits(precision)
    return {
        name: max(limit, 1 / num_examples) if name in task.rates else limit for name, limit in limits.items()
    }


def _reference(source: Checkpoint, batches: Sequence[Batch], check: Callable[[], None]) -> Outputs:
    """Returns the trained model's own answers, one batch a core at a time.

    torch's threads wait for each other at every operator, and spin while they do: on two busy cores 200
    reviews through MiniLM took 23 CPU seconds that way and 11 this way.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run = torch_runner(source.model, source.task.outputs)
        return run_batches(batches, run, check, workers=threads)
    finally:
        torch.set_num_threads(threads)


def _chunks(rows: Sequence[int]) -> list[Sequence[int]]:
    return [rows[start : start + _BATCH_ROWS] for start in range(0, len(rows), _BATCH_ROWS)]


def _figure(name: str, value: float, limit: float) -> job_pb2.Figure:
    return job_pb2.Figure(name=name, value=value, limit=limit, passed=value <= limit)


def encode(encoder: Encoder, texts: Sequence[str], pairs: Sequence[str]) -> list[Tokens]:
    """Returns the tokens of texts, or of pairs as soon as one of `pairs` is not empty."""
    return encoder.encode(texts, pairs if any(pairs) else ())


def batch_of(rows: Sequence[Tokens], encoder: Encoder, inputs: Sequence[TensorSpec], *, step: int) -> Batch:
    """Returns `rows` as the model's inputs `(row, length)`, padded to a multiple of `step` tokens."""
    longest = max(len(row) for row in rows)
    length = min(-(-longest // step) * step, encoder.max_length)
    tensors = pad(rows, length, encoder.pad_id)
    return {spec.name: tensors[spec.name].astype(spec.dtype) for spec in inputs}
