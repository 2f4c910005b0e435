"""text-classification: one label for a text or a pair of texts, by softmax over the labels.

Knows everything that is particular to the task; knows nothing about how models run.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from conch.v1 import job_pb2, tasks_pb2
from services.errors import Violation
from services.tasks.base import Column, Task
from services.tasks.classify import Classify, softmax
from services.tasks.example import Encoded, Example, Facts
from services.tasks.reading import read_text, read_text_pair, rows_shown
from services.tasks.rpcs import UnaryRpc
from services.tasks.tensors import Answer, Array, FloatArray, IntArray, TensorSpec, stacked

_TRAIN, _VALIDATION = "spec.dataset.train_uri", "spec.dataset.validation_uri"
_LABELS = "spec.task_spec.text_classification.labels"
_SHOWN_LABELS = 10


def _limits(*, logit_difference: float, flips: float, accuracy_drop: float) -> dict[str, float]:
    return {
        "max_abs_logit_difference": logit_difference,
        "label_flip_rate": flips,
        "accuracy_drop": accuracy_drop,
        "num_nonfinite": 0.0,
    }


# Measured on 500 held-out reviews with MiniLM: see docs/adr/0004-parity-limits.md.
_LIMITS: dict[int, dict[str, float]] = {
    job_pb2.PRECISION_FP32: _limits(logit_difference=1e-3, flips=0.002, accuracy_drop=0.002),
    job_pb2.PRECISION_BF16: _limits(logit_difference=0.25, flips=0.01, accuracy_drop=0.005),
    job_pb2.PRECISION_INT8: _limits(logit_difference=1.0, flips=0.04, accuracy_drop=0.02),
}


class TextClassification(Task):
    """Labels with softmax scores; see the module's docstring."""

    id: ClassVar[str] = "text-classification"
    auto_model: ClassVar[str] = "AutoModelForSequenceClassification"
    outputs: ClassVar[tuple[TensorSpec, ...]] = (TensorSpec("logits", "float32", ("batch", "label")),)
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "text",
            ("text", "sentence", "review", "content", "premise", "sentence1", "text_a", "body", "title"),
        ),
        Column("text_pair", ("text_pair", "hypothesis", "sentence2", "text_b"), required=False),
        Column("label", ("label", "labels", "class", "category", "sentiment", "intent", "target")),
    )
    best_metric: ClassVar[str] = "macro_f1"
    rates: ClassVar[frozenset[str]] = frozenset({"label_flip_rate", "accuracy_drop"})
    rpcs: ClassVar[Mapping[str, UnaryRpc[Any, Any]]] = {"Classify": Classify()}
    ask: ClassVar[str] = 'classify --model {model} "..."'

    def check_spec(self, spec: tasks_pb2.TaskSpec) -> list[Violation]:
        labels = list(spec.text_classification.labels)
        if not labels:
            return []
        problems = []
        if len(labels) < 2:
            problems.append(Violation(_LABELS, "a classifier needs two labels"))
        if len(set(labels)) < len(labels) or "" in labels:
            problems.append(Violation(_LABELS, "labels must differ and none may be empty"))
        return problems

    def read(self, values: Mapping[str, Any], row: int, spec: tasks_pb2.TaskSpec) -> Example:
        """Reads the label as text: true and 1 as JSON writes them, 1.0 as "1"."""
        return Example(read_text(values), read_text_pair(values), _label(values.get("label")), row)

    def settle(self, train: Sequence[Example], spec: tasks_pb2.TaskSpec) -> Facts:
        """Takes the spec's label order, else the labels of the training split, numbers in numeric order."""
        labels = list(spec.text_classification.labels) or sorted({e.target for e in train}, key=_natural)
        full = tasks_pb2.TaskSpec()
        full.CopyFrom(spec)
        full.text_classification.labels[:] = labels
        full.text_classification.problem_type = tasks_pb2.TextClassificationSpec.PROBLEM_TYPE_SINGLE_LABEL
        return Facts(tuple(labels), full)

    def find_problems(
        self, train: Sequence[Example], validation: Sequence[Example], facts: Facts
    ) -> list[Violation]:
        seen = {example.target for example in train}
        problems = []
        if len(seen) < 2:
            only = f"only the label {next(iter(seen))!r}" if seen else "no label at all"
            problems.append(Violation(_TRAIN, f"a classifier needs two labels, found {only}"))
        problems += _bad_labels(facts.labels, seen)
        problems += _strangers(_TRAIN, train, set(facts.labels), "is not among the spec's labels")
        problems += _strangers(_VALIDATION, validation, seen, "never occurs in the training split")
        return problems

    def find_stray(self, example: Example, facts: Facts) -> str:
        return "" if example.target in facts.labels else str(example.target)

    def strata(self, examples: Sequence[Example]) -> list[str]:
        return [example.target for example in examples]

    def targets(self, encoded: Encoded, facts: Facts) -> list[dict[str, Array]]:
        return [{"labels": np.array(facts.labels.index(encoded.example.target), dtype=np.int64)}]

    def evaluate(
        self, encoded: Sequence[Encoded], answers: Sequence[Answer], facts: Facts
    ) -> job_pb2.Evaluation:
        logits, targets = stacked(answers, "logits"), _targets(encoded, facts)
        matrix = _confusion_matrix(_predicted(logits), targets, len(facts.labels))
        per_label = _label_metrics(matrix, facts.labels)
        loss = -np.log(np.clip(softmax(logits)[np.arange(len(targets)), targets], 1e-12, None)).mean()
        metrics = {
            "accuracy": float(np.trace(matrix) / max(1, matrix.sum())),
            "macro_precision": float(np.mean([m.precision for m in per_label])),
            "macro_recall": float(np.mean([m.recall for m in per_label])),
            "macro_f1": float(np.mean([m.f1 for m in per_label])),
            "loss": float(loss),
        }
        detail = job_pb2.ClassificationDetail(labels=per_label, confusion_matrix=matrix.ravel().tolist())
        return job_pb2.Evaluation(num_examples=len(targets), metrics=metrics, classification=detail)

    def compare(
        self,
        encoded: Sequence[Encoded],
        reference: Sequence[Answer],
        candidate: Sequence[Answer],
        facts: Facts,
    ) -> dict[str, float]:
        want, got = stacked(reference, "logits"), stacked(candidate, "logits")
        known = all(e.example.target is not None for e in encoded)
        targets = _targets(encoded, facts) if known else _predicted(want)
        finite = np.isfinite(got).all(axis=1)
        difference = float(np.abs(want[finite] - got[finite]).max()) if finite.any() else float("inf")
        flipped = (_predicted(want) != _predicted(got)) | ~finite
        right, still_right = _predicted(want) == targets, (_predicted(got) == targets) & finite
        return {
            "max_abs_logit_difference": difference,
            "label_flip_rate": float(flipped.mean()),
            "accuracy_drop": max(0.0, float(right.mean() - still_right.mean())),
            "num_nonfinite": float((~np.isfinite(got)).sum()),
        }

    def limits(self, precision: job_pb2.Precision.ValueType) -> dict[str, float]:
        return dict(_LIMITS[precision])


def _label(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # what a column of integers becomes once one of them is missing
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float | None):
        raise ValueError(f"label is not a string or number but {type(value).__name__}")
    label = "" if value is None or value != value else str(value).strip()
    if not label:
        raise ValueError("label is missing")
    if any("\ud800" <= character <= "\udfff" for character in label):
        raise ValueError("label is not valid UTF-8")
    return label


def _targets(encoded: Sequence[Encoded], facts: Facts) -> IntArray:
    index = {label: i for i, label in enumerate(facts.labels)}
    return np.array([index[e.example.target] for e in encoded], dtype=np.int64)


def _predicted(logits: FloatArray) -> IntArray:
    return np.asarray(logits.argmax(axis=1), dtype=np.int64)


def _natural(label: str) -> tuple[int, float, str]:
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)


def _bad_labels(labels: Sequence[str], seen: set[str]) -> list[Violation]:
    problems = [
        Violation(_LABELS, f"label {label!r} stands there {count} times")
        for label, count in Counter(labels).items()
        if count > 1
    ]
    unseen = [label for label in dict.fromkeys(labels) if label not in seen]
    if unseen:
        shown = ", ".join(repr(label) for label in unseen)
        problems.append(Violation(_LABELS, f"the training split has no example of {shown}"))
    return problems


def _strangers(field: str, examples: Sequence[Example], known: set[str], complaint: str) -> list[Violation]:
    rows: dict[str, list[int]] = {}
    for example in examples:
        if example.target not in known:
            rows.setdefault(example.target, []).append(example.row)
    found = [
        Violation(field, f"label {label!r} ({rows_shown(numbers)}) {complaint}")
        for label, numbers in list(rows.items())[:_SHOWN_LABELS]
    ]
    if (more := len(rows) - _SHOWN_LABELS) > 0:
        found.append(Violation(field, f"{more} more labels: each {complaint}"))
    return found


def _confusion_matrix(predicted: IntArray, targets: IntArray, num_labels: int) -> IntArray:
    flat = np.bincount(targets * num_labels + predicted, minlength=num_labels * num_labels)
    return flat.reshape(num_labels, num_labels).astype(np.int64)


def _label_metrics(matrix: IntArray, labels: Sequence[str]) -> list[job_pb2.LabelMetrics]:
    hits, predicted, actual = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(actual, 1)
    f1 = 2 * hits / np.maximum(predicted + actual, 1)
    return [
        job_pb2.LabelMetrics(
            label=label, precision=precision[i], recall=recall[i], f1=f1[i], num_examples=int(actual[i])
        )
        for i, label in enumerate(labels)
    ]
