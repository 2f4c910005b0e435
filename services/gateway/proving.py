"""The proof that a loaded version answers right: its golden examples, through the real path.

Knows golden examples, certificates and tasks; knows nothing about routes or how versions are loaded.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf import json_format

from conch.v1 import job_pb2, models_pb2
from services.errors import NotReady
from services.gateway.batching import Batcher
from services.tasks import Task
from services.tasks.base import FloatArray
from services.tasks.encoding import Encoder


def read_golden(folder: Path) -> list[models_pb2.GoldenExample]:
    """Returns the golden examples of a version's folder. Raises NotReady if there are none to go by."""
    try:
        text = (folder / "golden.json").read_text(encoding="utf-8")
        golden = json_format.Parse(text, models_pb2.GoldenExamples())
    except (OSError, UnicodeDecodeError, json_format.ParseError) as error:
        raise _not_proven(f"its golden.json cannot be read: {error}") from error
    if not golden.examples:
        raise _not_proven("it has no golden examples")
    return list(golden.examples)


async def prove(
    golden: Sequence[models_pb2.GoldenExample],
    *,
    task: Task,
    encoder: Encoder,
    batcher: Batcher,
    verdict: job_pb2.Verdict | None,
) -> dict[str, float]:
    """Returns the figures of golden examples that came back right.

    Raises NotReady(NOT_PROVEN) with the figure at fault if they did not.

    Right is what the verdict's limits say. Without a verdict (an explicit override) there is no limit
    to hold answers against: they must be finite.
    """
    texts, pairs = [e.text for e in golden], [e.text_pair for e in golden]
    batched = await batcher.submit(encoder.encode(texts, pairs if any(pairs) else ()))
    reference = {spec.name: _golden_outputs(golden, spec.name) for spec in task.outputs}
    answered = {name: np.stack([row[name] for row in batched.rows]) for name in reference}
    _check_shapes(reference, answered)
    figures = task.compare(reference, answered, task.predict(reference))
    _check_figures(figures, _limits(verdict), rates=task.rates, num_examples=len(golden))
    return figures


def _limits(verdict: job_pb2.Verdict | None) -> Mapping[str, float]:
    if verdict is None:
        return {"num_nonfinite": 0.0}
    return {figure.name: figure.limit for figure in verdict.figures} | {"num_nonfinite": 0.0}


def _golden_outputs(golden: Sequence[models_pb2.GoldenExample], name: str) -> FloatArray:
    """Returns the golden values of one output, `(example, ...)`."""
    tensors = [example.outputs[name] for example in golden]
    try:
        return np.stack([np.array(t.values, dtype=np.float32).reshape(t.shape) for t in tensors])
    except ValueError as error:
        raise _not_proven(f"its golden.json is damaged: {error}") from error


def _check_shapes(reference: Mapping[str, FloatArray], answered: Mapping[str, FloatArray]) -> None:
    for name, want in reference.items():
        if answered[name].shape != want.shape:
            raise _not_proven(
                f"output {name} came back as {answered[name].shape}, the trained model's is {want.shape}"
            )


def _check_figures(
    figures: Mapping[str, float], limits: Mapping[str, float], *, rates: frozenset[str], num_examples: int
) -> None:
    for name, limit in limits.items():
        value = figures.get(name, 0.0)
        allowed = _sampled(limit, num_examples) if name in rates else limit
        if not value <= allowed:
            raise _not_proven(
                f"{name} on its golden examples is {value:.6g}, more than {allowed:.6g} "
                f"(its certificate's limit is {limit:.6g})"
            )


def _sampled(rate: float, num_examples: int) -> float:
    """Returns the largest rate among few examples that a limit of `rate` among many lets through.

    The limit holds over hundreds of examples: among 32 one flip on a tie is already 0.03. What is
    expected plus two standard deviations, as whole examples.
    """
    expected = rate * num_examples
    return math.ceil(expected + 2 * math.sqrt(expected * (1 - rate))) / num_examples


def _not_proven(problem: str) -> NotReady:
    return NotReady(f"it did not prove itself: {problem}", reason="NOT_PROVEN")
