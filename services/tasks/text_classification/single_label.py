"""Exactly one label fits a text: softmax over the labels.

Knows labels, logits and metrics; knows nothing about how models run.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from conch.v1 import inference_pb2, job_pb2
from services.errors import Violation
from services.tasks.example import Encoded, Example, Facts
from services.tasks.reading import TRAIN
from services.tasks.scores import best_labels, softmax
from services.tasks.tensors import Array, FloatArray, IntArray
from services.tasks.text_classification.label_problem import label_problems, natural


class SingleLabel:
    """See LabelProblem."""

    metric = "macro_f1"

    def labels(self, train: Sequence[Example], asked: Sequence[str]) -> list[str]:
        """Numbers in numeric order where the data decides."""
        return list(asked) or sorted({e.target for e in train}, key=natural)

    def find_problems(
        self, train: Sequence[Example], validation: Sequence[Example], labels: Sequence[str]
    ) -> list[Violation]:
        """Finds labels that are too few, never occur or are not known."""
        seen = {example.target for example in train}
        problems = []
        if len(seen) < 2:
            only = f"only the label {next(iter(seen))!r}" if seen else "no label at all"
            problems.append(Violation(TRAIN, f"a classifier needs two labels, found {only}"))
        return problems + label_problems(train, validation, labels, _labels_of)

    def find_stray(self, example: Example, labels: Sequence[str]) -> str:
        """A label that is none of the model's."""
        return "" if example.target in labels else str(example.target)

    def config(self) -> dict[str, Any]:
        """Cross entropy is transformers' default; saying so keeps it from guessing by the targets."""
        return {"problem_type": "single_label_classification"}

    def target(self, example: Example, labels: Sequence[str]) -> Array:
        """The label's place."""
        return np.array(labels.index(example.target), dtype=np.int64)

    def evaluate(
        self, logits: FloatArray, examples: Sequence[Example], labels: Sequence[str]
    ) -> job_pb2.Evaluation:
        """Accuracy, macro averages, loss; per label and as a confusion matrix."""
        targets = _targets(examples, labels)
        matrix = _confusion_matrix(_predicted(logits), targets, len(labels))
        per_label = _label_metrics(matrix, labels)
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
        self, want: FloatArray, got: FloatArray, encoded: Sequence[Encoded], facts: Facts
    ) -> dict[str, float]:
        """Logits, labels that flip, accuracy that is lost."""
        known = all(e.example.target is not None for e in encoded)
        targets = _targets([e.example for e in encoded], facts.labels) if known else _predicted(want)
        finite = np.isfinite(got).all(axis=1)
        flipped = (_predicted(want) != _predicted(got)) | ~finite
        right, still_right = _predicted(want) == targets, (_predicted(got) == targets) & finite
        return {
            "max_abs_logit_difference": logit_difference(want, got),
            "label_flip_rate": float(flipped.mean()),
            "accuracy_drop": max(0.0, float(right.mean() - still_right.mean())),
            "num_nonfinite": float((~np.isfinite(got)).sum()),
        }

    def decode(self, logits: FloatArray, labels: Sequence[str], top_k: int) -> inference_pb2.Classification:
        """Softmax scores, best first."""
        return inference_pb2.Classification(labels=best_labels(logits, labels, top_k))


def logit_difference(want: FloatArray, got: FloatArray) -> float:
    """Returns the greatest difference over the rows that are finite, infinity if none is."""
    finite = np.isfinite(got).all(axis=1)
    return float(np.abs(want[finite] - got[finite]).max()) if finite.any() else float("inf")


def _targets(examples: Sequence[Example], labels: Sequence[str]) -> IntArray:
    index = {label: i for i, label in enumerate(labels)}
    return np.array([index[e.target] for e in examples], dtype=np.int64)


def _predicted(logits: FloatArray) -> IntArray:
    return np.asarray(logits.argmax(axis=1), dtype=np.int64)


def _confusion_matrix(predicted: IntArray, targets: IntArray, num_labels: int) -> IntArray:
    flat = np.bincount(targets * num_labels + predicted, minlength=num_labels * num_labels)
    return flat.reshape(num_labels, num_labels).astype(np.int64)


def _label_metrics(matrix: IntArray, labels: Sequence[str]) -> list[job_pb2.LabelMetrics]:
    hits, predicted, actual = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    return label_metrics(labels, hits, predicted, actual)


def label_metrics(
    labels: Sequence[str], hits: Array, predicted: Array, actual: Array
) -> list[job_pb2.LabelMetrics]:
    """Returns precision, recall and F1 of each label from its counts."""
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(actual, 1)
    f1 = 2 * hits / np.maximum(predicted + actual, 1)
    return [
        job_pb2.LabelMetrics(
            label=label, precision=precision[i], recall=recall[i], f1=f1[i], num_examples=int(actual[i])
        )
        for i, label in enumerate(labels)
    ]


def _labels_of(example: Example) -> list[str]:
    return [example.target]
