"""Any number of labels fits a text, none included: a sigmoid for each label, which fits from 0.5 on.

Knows labels, logits and metrics; knows nothing about how models run.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from conch.v1 import inference_pb2, job_pb2
from services.errors import Violation
from services.tasks.example import Encoded, Example, Facts
from services.tasks.reading import TRAIN
from services.tasks.scores import ranked, sigmoid
from services.tasks.tensors import Array, FloatArray
from services.tasks.text_classification.label_problem import label_problems, natural, read_label
from services.tasks.text_classification.single_label import label_metrics, logit_difference

SEPARATOR = "|"


class MultiLabel:
    """See LabelProblem. A target is a list of labels without doubles."""

    metric = "macro_f1"

    def labels(self, train: Sequence[Example], asked: Sequence[str]) -> list[str]:
        """Numbers in numeric order where the data decides."""
        return list(asked) or sorted({label for e in train for label in e.target}, key=natural)

    def find_problems(
        self, train: Sequence[Example], validation: Sequence[Example], labels: Sequence[str]
    ) -> list[Violation]:
        """Finds labels that are missing, never occur or are not known."""
        problems = [] if any(e.target for e in train) else [Violation(TRAIN, "no row has a label")]
        return problems + label_problems(train, validation, labels, _labels_of)

    def find_stray(self, example: Example, labels: Sequence[str]) -> str:
        """The first label that is none of the model's."""
        return next((label for label in example.target if label not in labels), "")

    def config(self) -> dict[str, Any]:
        """Binary cross entropy."""
        return {"problem_type": "multi_label_classification"}

    def target(self, example: Example, labels: Sequence[str]) -> Array:
        """1.0 for each label that fits."""
        return np.array([label in example.target for label in labels], dtype=np.float32)

    def evaluate(
        self, logits: FloatArray, examples: Sequence[Example], labels: Sequence[str]
    ) -> job_pb2.Evaluation:
        """Exact match, micro and macro F1, loss; per label."""
        targets, predicted = _targets(examples, labels), _fits(logits)
        hits = (targets & predicted).sum(axis=0)
        per_label = label_metrics(labels, hits, predicted.sum(axis=0), targets.sum(axis=0))
        total = int(targets.sum() + predicted.sum())
        metrics = {
            "exact_match": float((targets == predicted).all(axis=1).mean()),
            "micro_f1": float(2 * hits.sum() / max(1, total)),
            "macro_f1": float(np.mean([m.f1 for m in per_label])),
            "loss": _loss(logits, targets),
        }
        detail = job_pb2.ClassificationDetail(labels=per_label)
        return job_pb2.Evaluation(num_examples=len(examples), metrics=metrics, classification=detail)

    def compare(
        self, want: FloatArray, got: FloatArray, encoded: Sequence[Encoded], facts: Facts
    ) -> dict[str, float]:
        """Logits, sets of labels that differ, exact matches that are lost."""
        known = all(e.example.target is not None for e in encoded)
        targets = _targets([e.example for e in encoded], facts.labels) if known else _fits(want)
        finite = np.isfinite(got).all(axis=1)
        flipped = (_fits(want) != _fits(got)).any(axis=1) | ~finite
        right = (_fits(want) == targets).all(axis=1)
        still_right = (_fits(got) == targets).all(axis=1) & finite
        return {
            "max_abs_logit_difference": logit_difference(want, got),
            "label_flip_rate": float(flipped.mean()),
            "accuracy_drop": max(0.0, float(right.mean() - still_right.mean())),
            "num_nonfinite": float((~np.isfinite(got)).sum()),
        }

    def decode(self, logits: FloatArray, labels: Sequence[str], top_k: int) -> inference_pb2.Classification:
        """Each label's own probability, best first."""
        return inference_pb2.Classification(labels=ranked(sigmoid(logits).tolist(), labels, top_k))


def read_labels(value: Any, separator: str = "") -> list[str]:
    """Returns the labels of a list, or of a text that holds them apart by `separator`, without doubles.

    An empty list or text is no label. Raises ValueError.
    """
    if value is None or value != value:
        raise ValueError("label is missing")
    if isinstance(value, str):
        value = [part for part in value.split(separator or SEPARATOR) if part.strip()]
    if not isinstance(value, list | tuple):
        value = [value]
    return list(dict.fromkeys(read_label(label) for label in value))


def _targets(examples: Sequence[Example], labels: Sequence[str]) -> Array:
    return np.array([[label in e.target for label in labels] for e in examples], dtype=bool)


def _fits(logits: FloatArray) -> Array:
    return np.asarray(logits > 0, dtype=bool)  # a sigmoid above 0.5


def _loss(logits: FloatArray, targets: Array) -> float:
    # log(1 + exp(-|x|)) + max(x, 0) - x * t: binary cross entropy that never overflows.
    wide = logits.astype(np.float64)
    return float((np.log1p(np.exp(-np.abs(wide))) + np.maximum(wide, 0) - wide * targets).mean())


def _labels_of(example: Example) -> list[str]:
    return list(example.target)
