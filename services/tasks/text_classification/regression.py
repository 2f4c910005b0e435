"""A number for a text, such as a rating: the model's single output as it is.

Knows numbers and metrics; knows nothing about how models run.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from conch.v1 import inference_pb2, job_pb2
from services.errors import Violation
from services.tasks.correlations import correlation_metrics
from services.tasks.example import Encoded, Example, Facts
from services.tasks.reading import TRAIN
from services.tasks.tensors import Array, FloatArray
from services.tasks.text_classification.label_problem import LABELS


class Regression:
    """See LabelProblem. A target is a float."""

    metric = "spearman"

    def labels(self, train: Sequence[Example], asked: Sequence[str]) -> list[str]:
        """None, whatever was asked for: find_problems says so."""
        return list(asked)

    def find_problems(
        self, train: Sequence[Example], validation: Sequence[Example], labels: Sequence[str]
    ) -> list[Violation]:
        """Finds labels, which a number has none of, and numbers that are all alike."""
        problems = [Violation(LABELS, "a regression has no labels")] if labels else []
        if len({example.target for example in train}) < 2:
            problems.append(Violation(TRAIN, "a regression needs two different numbers"))
        return problems

    def find_stray(self, example: Example, labels: Sequence[str]) -> str:
        """Any number may come."""
        return "" if isinstance(example.target, int | float) else str(example.target)

    def config(self) -> dict[str, Any]:
        """Mean squared error on one output."""
        return {"problem_type": "regression", "num_labels": 1}

    def target(self, example: Example, labels: Sequence[str]) -> Array:
        """The number."""
        return np.array(example.target, dtype=np.float32)

    def evaluate(
        self, logits: FloatArray, examples: Sequence[Example], labels: Sequence[str]
    ) -> job_pb2.Evaluation:
        """Spearman's and Pearson's correlation, mean absolute error, loss (mean squared error)."""
        values, targets = logits[:, 0].astype(np.float64), np.array([e.target for e in examples], np.float64)
        metrics = {
            **correlation_metrics(values, targets),
            "mean_absolute_error": float(np.abs(values - targets).mean()),
            "loss": float(((values - targets) ** 2).mean()),
        }
        return job_pb2.Evaluation(num_examples=len(examples), metrics=metrics)

    def compare(
        self, want: FloatArray, got: FloatArray, encoded: Sequence[Encoded], facts: Facts
    ) -> dict[str, float]:
        """Differences in standard deviations of the trained model's own numbers: scales differ by data."""
        finite = np.isfinite(got).all(axis=1)
        spread = float(want.std()) or 1.0
        difference = np.abs(want[finite] - got[finite])
        return {
            "max_difference_in_deviations": float(difference.max()) / spread if finite.any() else math.inf,
            "num_nonfinite": float((~np.isfinite(got)).sum()),
        }

    def decode(self, logits: FloatArray, labels: Sequence[str], top_k: int) -> inference_pb2.Classification:
        """The number; there are no labels."""
        return inference_pb2.Classification(value=float(logits[0]))


def read_number(value: Any) -> float:
    """Returns a finite number, also from text. Raises ValueError."""
    if value is None or value == "":
        raise ValueError("label is missing")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"label {value!r} is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"label {value!r} is no finite number")
    return number
