"""token-classification: typed spans of a text, by one IOB2 tag a token, read in windows where it is long.

Knows everything that is particular to the task; knows nothing about how models run.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from conch.v1 import job_pb2, tasks_pb2, training_pb2
from services.errors import InvalidRequest, Violation
from services.tasks.base import Column, Task
from services.tasks.encoding import Encoder
from services.tasks.example import Encoded, Example, Facts, open_copy
from services.tasks.reading import TRAIN, unseen_labels
from services.tasks.rpcs import UnaryRpc
from services.tasks.tensors import IGNORED, Answer, Array, FloatArray, IntArray, TensorSpec
from services.tasks.token_classification.entity_rows import TYPES, check_types, read_row, stray_types
from services.tasks.token_classification.extract_entities import ExtractEntities, found_in
from services.tasks.token_classification.span_scores import Counts, count_spans, evaluation_of
from services.tasks.token_classification.spans import (
    Span,
    stride_of,
    tags_of,
    token_targets,
    types_of,
)

_STRIDE = "spec.task_spec.token_classification.stride"


def _limits(*, logit_difference: float, flips: float, f1_drop: float) -> dict[str, float]:
    return {
        "max_abs_logit_difference": logit_difference,
        "span_flip_rate": flips,
        "span_f1_drop": f1_drop,
        "num_nonfinite": 0.0,
    }


# Measured on held-out sentences of CoNLL-2003 with MiniLM: see docs/adr/0007-parity-limits-of-token-tasks.md.
_LIMITS: dict[int, dict[str, float]] = {
    job_pb2.PRECISION_FP32: _limits(logit_difference=1e-3, flips=0.002, f1_drop=0.002),
    job_pb2.PRECISION_BF16: _limits(logit_difference=0.5, flips=0.02, f1_drop=0.01),
    job_pb2.PRECISION_INT8: _limits(logit_difference=4.0, flips=0.1, f1_drop=0.03),
}


class TokenClassification(Task):
    """Spans with types; see the module's docstring."""

    id: ClassVar[str] = "token-classification"
    auto_model: ClassVar[str] = "AutoModelForTokenClassification"
    outputs: ClassVar[tuple[TensorSpec, ...]] = (
        TensorSpec("logits", "float32", ("batch", "sequence", "label")),
    )
    columns: ClassVar[tuple[Column, ...]] = (
        Column("text", ("text", "sentence", "content"), required=False),
        Column("spans", ("spans", "entities", "labels"), required=False),
        Column("tokens", ("tokens", "words"), required=False),
        Column("tags", ("tags", "ner_tags", "labels"), required=False),
    )
    column_sets: ClassVar[tuple[tuple[str, ...], ...]] = (("tokens", "tags"), ("text", "spans"))
    formats: ClassVar[Mapping[str, training_pb2.Dataset.Format.ValueType]] = {
        ".txt": training_pb2.Dataset.FORMAT_CONLL
    }
    best_metric: ClassVar[str] = "span_f1"
    rates: ClassVar[frozenset[str]] = frozenset({"span_flip_rate", "span_f1_drop"})
    rpcs: ClassVar[Mapping[str, UnaryRpc[Any, Any]]] = {"ExtractEntities": ExtractEntities()}
    ask: ClassVar[str] = 'extract --model {model} "..."'

    def check_spec(self, spec: tasks_pb2.TaskSpec) -> list[Violation]:
        return check_types(spec.token_classification.labels)

    def read(self, values: Mapping[str, Any], row: int, spec: tasks_pb2.TaskSpec) -> Example:
        """Reads tokens with tags where a file has both, else a text with its spans."""
        text, spans = read_row(values)
        return Example(text, "", [[span.start, span.end, span.label] for span in spans], row)

    def settle(self, train: Sequence[Example], spec: tasks_pb2.TaskSpec) -> Facts:
        """Takes the spec's types, else those of the training split, sorted."""
        full = open_copy(spec)
        seen = {span.label for example in train for span in _spans(example)}
        types = list(spec.token_classification.labels) or sorted(seen)
        full.token_classification.labels[:] = types
        return Facts(tags_of(types), full)

    def find_problems(
        self, train: Sequence[Example], validation: Sequence[Example], facts: Facts
    ) -> list[Violation]:
        types = types_of(facts.labels)
        seen = {span.label for example in train for span in _spans(example)}
        if not seen:
            return [Violation(TRAIN, "the training split has no entity at all")]
        return [*unseen_labels(TYPES, types, seen), *stray_types(train, validation, types)]

    def find_stray(self, example: Example, facts: Facts) -> str:
        types = types_of(facts.labels)
        return next((span.label for span in _spans(example) if span.label not in types), "")

    def strata(self, examples: Sequence[Example]) -> list[str]:
        """Returns the rarest type in each example, so that every type reaches every split."""
        counts = Counter(span.label for example in examples for span in _spans(example))
        found = [
            min((span.label for span in _spans(e)), key=lambda label: (counts[label], label), default="")
            for e in examples
        ]
        return _joined_singles(found, examples)

    def encode(self, encoder: Encoder, examples: Sequence[Example], facts: Facts) -> list[Encoded]:
        """Reads long texts in overlapping windows; nothing is cut off.

        Raises InvalidRequest for a stride of half of max_length and more: windows would overlap thrice.
        """
        spec = facts.spec.token_classification
        stride = stride_of(spec.stride if spec.HasField("stride") else None, encoder.max_length)
        if 2 * stride >= encoder.max_length:
            why = f"{stride} tokens; below half of max_length, {encoder.max_length}, is wanted"
            raise InvalidRequest.field(_STRIDE, why)
        windows = encoder.windows([e.text for e in examples], stride=stride)
        return [Encoded(e, found) for e, found in zip(examples, windows, strict=True)]

    def targets(self, encoded: Encoded, facts: Facts) -> list[dict[str, Array]]:
        spans = _spans(encoded.example)
        return [{"labels": token_targets(window, spans, facts.labels)} for window in encoded.windows]

    def evaluate(
        self, encoded: Sequence[Encoded], answers: Sequence[Answer], facts: Facts
    ) -> job_pb2.Evaluation:
        counts = Counts()
        for read, answer in zip(encoded, answers, strict=True):
            counts.add(_spans(read.example), _found(read, answer, facts))
        evaluation = evaluation_of(counts, types_of(facts.labels))
        evaluation.num_examples = len(encoded)
        evaluation.metrics["loss"] = self._loss(encoded, answers, facts)
        return evaluation

    def compare(
        self,
        encoded: Sequence[Encoded],
        reference: Sequence[Answer],
        candidate: Sequence[Answer],
        facts: Facts,
    ) -> dict[str, float]:
        want = [_found(read, answer, facts) for read, answer in zip(encoded, reference, strict=True)]
        finite = [_is_finite(answer) for answer in candidate]
        got = [
            _found(read, answer, facts) if whole else []
            for read, answer, whole in zip(encoded, candidate, finite, strict=True)
        ]
        known = all(read.example.target is not None for read in encoded)
        true = [_spans(read.example) for read in encoded] if known else want
        difference, num_nonfinite = _difference(reference, candidate)
        kept = [one == other for one, other in zip(want, got, strict=True)]
        drop = count_spans(true, want).f1 - count_spans(true, got).f1
        return {
            "max_abs_logit_difference": difference,
            "span_flip_rate": 1 - float(np.mean(np.logical_and(kept, finite))),
            "span_f1_drop": max(0.0, drop),
            "num_nonfinite": float(num_nonfinite),
        }

    def limits(self, precision: job_pb2.Precision.ValueType) -> dict[str, float]:
        return dict(_LIMITS[precision])

    def _loss(self, encoded: Sequence[Encoded], answers: Sequence[Answer], facts: Facts) -> float:
        """Returns the mean cross-entropy over tokens, those that two windows share counted in both."""
        losses = []
        for read, answer in zip(encoded, answers, strict=True):
            for target, row in zip(self.targets(read, facts), answer, strict=True):
                losses.append(_token_losses(row["logits"], target["labels"]))
        return float(np.concatenate(losses).mean())


def _spans(example: Example) -> list[Span]:
    return [Span(label, start, end) for start, end, label in example.target]


def _found(read: Encoded, answer: Answer, facts: Facts) -> list[Span]:
    """Returns the spans that ExtractEntities finds by default."""
    return [Span(one.label, one.start, one.end) for one in found_in(read, answer, facts)]


def _is_finite(answer: Answer) -> bool:
    return all(bool(np.isfinite(row["logits"]).all()) for row in answer)


def _difference(reference: Sequence[Answer], candidate: Sequence[Answer]) -> tuple[float, int]:
    """Returns the greatest difference of finite logits, infinity if there are none, and how many are not."""
    want = np.concatenate([row["logits"].ravel() for answer in reference for row in answer])
    got = np.concatenate([row["logits"].ravel() for answer in candidate for row in answer])
    finite = np.isfinite(got)
    difference = float(np.abs(want[finite] - got[finite]).max()) if finite.any() else float("inf")
    return difference, int((~finite).sum())


def _token_losses(logits: FloatArray, targets: IntArray) -> FloatArray:
    kept = targets != IGNORED
    logits, targets = logits[kept], targets[kept]
    highest = logits.max(axis=1, initial=-np.inf)
    total = np.log(np.exp(logits - highest[:, None]).sum(axis=1)) + highest
    return np.asarray(total - logits[np.arange(len(targets)), targets], dtype=np.float32)


def _joined_singles(strata: Sequence[str], examples: Sequence[Example]) -> list[str]:
    """Returns the strata, those of a single text added to the largest: it cannot stand in two splits."""
    texts: dict[str, set[str]] = {}
    for stratum, example in zip(strata, examples, strict=True):
        texts.setdefault(stratum, set()).add(example.text)
    largest = max(texts, key=lambda stratum: (len(texts[stratum]), stratum), default="")
    return [stratum if len(texts[stratum]) > 1 else largest for stratum in strata]
