"""What text-classification asks of each problem type: one label, several, or a number.

Knows the interface and what the types share; each type is a module of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from conch.v1 import inference_pb2, job_pb2, tasks_pb2
from services.errors import Violation
from services.tasks.example import Encoded, Example, Facts
from services.tasks.reading import TRAIN, VALIDATION, is_unicode, rows_shown, stray_rows, unseen_labels
from services.tasks.tensors import Array, FloatArray

LABELS = "spec.task_spec.text_classification.labels"
_SHOWN_LABELS = 10

Spec = tasks_pb2.TextClassificationSpec
SINGLE_LABEL = Spec.PROBLEM_TYPE_SINGLE_LABEL
MULTI_LABEL = Spec.PROBLEM_TYPE_MULTI_LABEL
REGRESSION = Spec.PROBLEM_TYPE_REGRESSION


class LabelProblem(Protocol):
    """One problem type. `logits` are `(example, label)`, of regression `(example, 1)`."""

    metric: str
    """The metric by which the best checkpoint is chosen; greater is better."""

    def labels(self, train: Sequence[Example], asked: Sequence[str]) -> list[str]:
        """Returns the labels in the order of the logits: those asked for, else those of the data."""

    def find_problems(
        self, train: Sequence[Example], validation: Sequence[Example], labels: Sequence[str]
    ) -> list[Violation]:
        """As Task.find_problems."""

    def find_stray(self, example: Example, labels: Sequence[str]) -> str:
        """As Task.find_stray."""

    def config(self) -> dict[str, Any]:
        """Returns what transformers' config must say of the loss, beside the labels."""

    def target(self, example: Example, labels: Sequence[str]) -> Array:
        """Returns what the loss compares the logits with."""

    def evaluate(
        self, logits: FloatArray, examples: Sequence[Example], labels: Sequence[str]
    ) -> job_pb2.Evaluation:
        """As Task.evaluate."""

    def compare(
        self, want: FloatArray, got: FloatArray, encoded: Sequence[Encoded], facts: Facts
    ) -> dict[str, float]:
        """As Task.compare."""

    def decode(self, logits: FloatArray, labels: Sequence[str], top_k: int) -> inference_pb2.Classification:
        """Returns what one row of logits says, how it was read left out."""


def read_label(value: Any) -> str:
    """Returns a label as text: true and 1 as JSON writes them, 1.0 as "1". Raises ValueError."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # what a column of integers becomes once one of them is missing
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float | None):
        raise ValueError(f"label is not a string or number but {type(value).__name__}")
    label = "" if value is None or value != value else str(value).strip()
    if not label:
        raise ValueError("label is missing")
    if not is_unicode(label):
        raise ValueError("label is not valid UTF-8")
    return label


def natural(label: str) -> tuple[int, float, str]:
    """Returns the key that puts numbers first, in numeric order."""
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)


def label_problems(
    train: Sequence[Example],
    validation: Sequence[Example],
    labels: Sequence[str],
    labels_of: Callable[[Example], Sequence[str]],
) -> list[Violation]:
    """Returns what is wrong with the labels of both splits: never seen, or not known to the model."""
    seen = {label for example in train for label in labels_of(example)}
    return [
        *unseen_labels(LABELS, labels, seen),
        *_strangers(TRAIN, stray_rows(train, set(labels), labels_of), "is not among the spec's labels"),
        *_strangers(
            VALIDATION, stray_rows(validation, seen, labels_of), "never occurs in the training split"
        ),
    ]


def _strangers(field: str, rows: Mapping[str, Sequence[int]], complaint: str) -> list[Violation]:
    """Returns a violation a label of `rows` (label -> its rows), of the first ten and of the rest."""
    found = [
        Violation(field, f"label {label!r} ({rows_shown(numbers)}) {complaint}")
        for label, numbers in list(rows.items())[:_SHOWN_LABELS]
    ]
    if (more := len(rows) - _SHOWN_LABELS) > 0:
        found.append(Violation(field, f"{more} more labels: each {complaint}"))
    return found
