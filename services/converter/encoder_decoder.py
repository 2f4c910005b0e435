"""The recipe for encoder-decoders: two ONNX graphs and the facts of their search, for the seq2seq backend.

Reads top to bottom like a recipe. Candidates run in this process through the backend's own code, so that
what is judged is what is served.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from conch.v1 import conversion_pb2, job_pb2
from services import reference_search
from services.converter import parity, runtimes, seq2seq_export, seq2seq_rules, triton_config
from services.converter.checkpoint import Checkpoint
from services.converter.recipe import Stages
from services.targets import target_name
from services.tasks import Encoded, next_tokens
from services.tasks.encoding import Tokens, pad
from services.tasks.golden import golden_answers
from services.tasks.tensors import Answer, Row
from services.tasks.text2text_generation.sequences import ids_of
from services.token_scores import scored
from services.triton.backends.seq2seq.generation import Generator, Parameters, tensors

_FILES = (seq2seq_export.ENCODER, seq2seq_export.DECODER, seq2seq_rules.FILE_NAME)
_ROWS = 16
_SCORE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Held:
    """Held-out examples with what the trained model writes for them and makes of their targets."""

    encoded: list[Encoded]
    batches: list[list[int]]
    """Examples of like length, which run together."""
    written: list[Answer]
    known: list[Answer]


class EncoderDecoderRecipe:
    """One encoder-decoder's conversion; see services.converter.recipe.Recipe."""

    def __init__(self, source: Checkpoint, spec: conversion_pb2.ConversionSpec) -> None:
        self.source = source
        self._spec = spec

    @staticmethod
    def num_stages(spec: conversion_pb2.ConversionSpec) -> int:
        """Export and reference; each target is a part more."""
        return 2 + len(spec.targets)

    def build(self, folder: Path, work: Path, stages: Stages) -> None:
        """Exports both graphs and generation.json."""
        _check_golden(self.source)
        stages.begin("export")
        seq2seq_export.export(self.source.model, folder)

    def judge(self, folder: Path, stages: Stages) -> Iterator[job_pb2.Verdict]:
        """Holds each target against the trained model on held-out examples: its sequences and its logits."""
        spec, source = self._spec, self.source
        stages.begin("reference")
        held = _hold(source, spec.num_parity_examples, stages)
        for target in spec.targets:
            stages.begin(f"parity {target_name(target.runtime, target.precision)}")
            values = _figures(source, held, Generator(folder, runtimes.session_options()), stages)
            yield parity.verdict(
                target, source.task, values, _FILES, len(held.encoded), folder=folder, limits=spec.limits
            )

    def configs(self, model: str) -> Mapping[str, str]:
        """One config a pool, from the task's TensorSpecs."""
        return triton_config.config_texts(model, self.source.task, self.source.task.inputs)


def _check_golden(source: Checkpoint) -> None:
    """Raises NotReady unless the checkpoint's weights write for its golden examples what is recorded."""
    examples, wanted = golden_answers(source.golden.examples)
    for encoded, want in zip(source.encode(examples), wanted, strict=True):
        [got] = reference_search.search(source.model, encoded.windows, source.encoder.pad_id)
        if ids_of(got) != ids_of(want[0]):
            raise parity.golden_mismatch("a sequence differs")
        difference = abs(float(got["sequence_scores"][0]) - float(want[0]["sequence_scores"][0]))
        if not difference <= _SCORE_TOLERANCE:
            raise parity.golden_mismatch(f"a score differs by {difference:.3g}")


def _hold(source: Checkpoint, num_examples: int, stages: Stages) -> _Held:
    encoded = source.encode(source.sample(num_examples))
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].windows[0]))
    batches = [order[start : start + _ROWS] for start in range(0, len(order), _ROWS)]
    written: list[Answer] = [[]] * len(encoded)
    known: list[Answer] = [[]] * len(encoded)
    for batch in batches:
        stages.check()
        windows, targets = _batch(encoded, batch)
        pad_id = source.encoder.pad_id
        _fill(written, batch, reference_search.search(source.model, windows, pad_id))
        _fill(known, batch, reference_search.score_targets(source.model, windows, targets, pad_id))
    return _Held(encoded, batches, written, known)


def _figures(source: Checkpoint, held: _Held, generator: Generator, stages: Stages) -> dict[str, float]:
    written: list[Answer] = [[]] * len(held.encoded)
    known: list[Answer] = [[]] * len(held.encoded)
    for batch in held.batches:
        stages.check()
        windows, targets = _batch(held.encoded, batch)
        _fill(written, batch, _written(generator, windows, source.encoder.pad_id))
        like = [held.known[i][0] for i in batch]
        _fill(known, batch, _known(source, generator, windows, targets, like))
    figures = next_tokens.figures(held.known, known)
    found = source.task.compare(held.encoded, held.written, written, source.facts)
    return figures | found | {"num_nonfinite": figures["num_nonfinite"] + found["num_nonfinite"]}


def _batch(encoded: Sequence[Encoded], batch: Sequence[int]) -> tuple[list[Tokens], list[Sequence[int]]]:
    return [encoded[i].windows[0] for i in batch], [encoded[i].target_ids for i in batch]


def _fill(answers: list[Answer], batch: Sequence[int], rows: Sequence[Row]) -> None:
    for i, row in zip(batch, rows, strict=True):
        answers[i] = [row]


def _written(generator: Generator, windows: Sequence[Tokens], pad_id: int) -> list[Row]:
    """Returns what the graphs write, as Triton gives it."""
    inputs = pad(windows, max(map(len, windows)), pad_id)
    parameters = Parameters.gathered(inputs).within(generator.rules)
    found = generator.generate(inputs["input_ids"], inputs["attention_mask"], parameters)
    finished = {one.row: one for some in found for one in some}
    outputs = tensors([finished[i] for i in range(len(windows))], generator.rules, parameters)
    return [{name: array[i] for name, array in outputs.items()} for i in range(len(windows))]


def _known(
    source: Checkpoint,
    generator: Generator,
    windows: Sequence[Tokens],
    targets: Sequence[Sequence[int]],
    like: Sequence[Row],
) -> list[Row]:
    """Returns what the graphs make of known targets."""
    inputs = pad(windows, max(map(len, windows)), source.encoder.pad_id)
    ids = np.ascontiguousarray(reference_search.decoder_inputs(source.model, targets).numpy())
    logits = torch.from_numpy(generator.graphs.logits(inputs["input_ids"], inputs["attention_mask"], ids))
    return [
        scored(logits[i, : len(target)], torch.tensor(target), row["top_ids"])
        for i, (target, row) in enumerate(zip(targets, like, strict=True))
    ]
