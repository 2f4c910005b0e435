"""The proof that a loaded version answers right: its golden examples, through the real path.

Knows golden examples, certificates and tasks; knows nothing about routes or how versions are loaded.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

from google.protobuf import json_format

from conch.v1 import job_pb2, models_pb2
from services.errors import NotReady
from services.gateway.batching import Batcher
from services.gateway.streams import Streams
from services.tasks import Facts, Task
from services.tasks.encoding import Encoder
from services.tasks.example import answers_of
from services.tasks.golden import golden_answers
from services.tasks.next_tokens import NUM_WRITTEN
from services.tasks.rpcs import Prompt
from services.tasks.tensors import Answer, Array


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
    facts: Facts,
    encoder: Encoder,
    batcher: Batcher,
    verdict: job_pb2.Verdict | None,
) -> dict[str, float]:
    """Returns the figures of golden examples that came back right.

    Raises NotReady(NOT_PROVEN) with the figure at fault if they did not.

    Right is what the verdict's limits say. Without a verdict (an explicit override) there is no limit
    to hold answers against: they must be finite.
    """
    try:
        examples, reference = golden_answers(golden)
    except ValueError as error:
        raise _not_proven(f"its golden.json is damaged: {error}") from error
    encoded = task.encode(encoder, examples, facts)
    batched = await batcher.submit([window for one in encoded for window in one.windows])
    answered = answers_of(encoded, batched.rows, task.outputs)
    _check_shapes(reference, answered, task)
    figures = task.compare(encoded, reference, answered, facts)
    _check_figures(figures, _limits(verdict), rates=task.rates, num_examples=len(golden))
    return figures


async def prove_texts(
    golden: Sequence[models_pb2.GoldenExample],
    *,
    task: Task,
    streams: Streams,
    verdict: job_pb2.Verdict | None,
) -> dict[str, float]:
    """Returns the figures of golden prompts that a decoder continued as the trained model did, greedily.

    All at once, as callers will ask. Raises NotReady(NOT_PROVEN) as `prove` does; without a verdict every
    prompt must be continued, whatever with.
    """
    greedy = {"temperature": 0.0, "max_tokens": NUM_WRITTEN}
    texts = await _written(streams, [Prompt(example.text, greedy) for example in golden])
    figures = task.compare_texts([example.generated for example in golden], texts)
    limits = _limits(verdict)
    unlimited = [name for name in figures if verdict and name not in limits]
    if unlimited:
        raise _not_proven(f"its certificate sets no limit to {', '.join(unlimited)}")
    _check_figures(figures, limits, rates=task.rates, num_examples=len(golden))
    return figures


async def _written(streams: Streams, prompts: Sequence[Prompt]) -> list[str]:
    tasks = [asyncio.create_task(_text(streams, prompt)) for prompt in prompts]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _text(streams: Streams, prompt: Prompt) -> str:
    # Past the queue: a version must prove itself whatever few streams it may have.
    async with aclosing(streams.write(prompt, deadline=None)) as pieces:
        return "".join([piece.text async for piece in pieces])


def _limits(verdict: job_pb2.Verdict | None) -> Mapping[str, float]:
    if verdict is None:
        return {"num_nonfinite": 0.0}
    return {figure.name: figure.limit for figure in verdict.figures} | {"num_nonfinite": 0.0}


def _check_shapes(reference: Sequence[Answer], answered: Sequence[Answer], task: Task) -> None:
    for want, got in zip(reference, answered, strict=True):
        if len(want) != len(got):
            raise _not_proven(f"a text was read in {len(got)} windows, the trained model read {len(want)}")
        for spec in (spec for spec in task.outputs if not spec.is_written):
            for ours, theirs in zip(got, want, strict=True):
                _check_shape(spec.name, ours[spec.name].shape, theirs)


def _check_shape(name: str, shape: tuple[int, ...], reference: Mapping[str, Array]) -> None:
    if name not in reference or reference[name].shape != shape:
        wanted = reference[name].shape if name in reference else "missing"
        raise _not_proven(f"output {name} came back as {shape}, the trained model's is {wanted}")


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
