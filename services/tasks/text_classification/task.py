"""text-classification: labels, or a number, for a text or a pair of texts.

Knows what its problem types share; one label, several and numbers are modules of their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from conch.v1 import job_pb2, tasks_pb2
from services.errors import Violation
from services.tasks.base import Column, Task
from services.tasks.example import Encoded, Example, Facts, open_copy
from services.tasks.feature_extraction.rank import CrossRank
from services.tasks.reading import TRAIN, read_text, read_text_pair, rows_shown
from services.tasks.rpcs import UnaryRpc
from services.tasks.tensors import Answer, Array, TensorSpec, stacked
from services.tasks.text_classification.classify import Classify
from services.tasks.text_classification.label_problem import (
    LABELS,
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    read_label,
)
from services.tasks.text_classification.multi_label import read_labels
from services.tasks.text_classification.problem_types import PROBLEMS, problem_of
from services.tasks.text_classification.regression import read_number


def _limits(*, logits: float, flips: float, accuracy: float, deviations: float) -> dict[str, float]:
    return {
        "max_abs_logit_difference": logits,
        "label_flip_rate": flips,
        "accuracy_drop": accuracy,
        "max_difference_in_deviations": deviations,
        "num_nonfinite": 0.0,
    }


# Measured on 500 held-out reviews with MiniLM: see docs/adr/0004-parity-limits.md.
_LIMITS: dict[int, dict[str, float]] = {
    job_pb2.PRECISION_FP32: _limits(logits=1e-3, flips=0.002, accuracy=0.002, deviations=1e-3),
    job_pb2.PRECISION_BF16: _limits(logits=0.25, flips=0.01, accuracy=0.005, deviations=0.1),
    job_pb2.PRECISION_INT8: _limits(logits=1.0, flips=0.04, accuracy=0.02, deviations=0.4),
}


class TextClassification(Task):
    """See the module's docstring."""

    id: ClassVar[str] = "text-classification"
    auto_model: ClassVar[str] = "AutoModelForSequenceClassification"
    outputs: ClassVar[tuple[TensorSpec, ...]] = (TensorSpec("logits", "float32", ("batch", "label")),)
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "text",
            ("text", "sentence", "review", "content", "premise", "sentence1", "text_a", "body", "title"),
        ),
        Column("text_pair", ("text_pair", "hypothesis", "sentence2", "text_b"), required=False),
        Column("label", ("label", "labels", "class", "category", "sentiment", "intent", "target", "score")),
    )
    best_metric: ClassVar[str] = "macro_f1"
    rates: ClassVar[frozenset[str]] = frozenset({"label_flip_rate", "accuracy_drop"})
    rpcs: ClassVar[Mapping[str, UnaryRpc[Any, Any]]] = {"Classify": Classify(), "Rank": CrossRank()}
    ask: ClassVar[str] = 'classify --model {model} "..."'

    def metric_of(self, facts: Facts) -> str:
        return problem_of(facts).metric

    def check_spec(self, spec: tasks_pb2.TaskSpec) -> list[Violation]:
        asked = spec.text_classification
        labels, is_single = list(asked.labels), asked.problem_type in (0, SINGLE_LABEL)
        problems = []
        if labels and len(labels) < 2 and is_single:
            problems.append(Violation(LABELS, "a classifier needs two labels"))
        if len(set(labels)) < len(labels) or "" in labels:
            problems.append(Violation(LABELS, "labels must differ and none may be empty"))
        if labels and asked.problem_type == REGRESSION:
            problems.append(Violation(LABELS, "a regression has no labels"))
        if asked.problem_type not in (0, *PROBLEMS):
            field = "spec.task_spec.text_classification.problem_type"
            problems.append(Violation(field, f"there is no problem type {asked.problem_type}"))
        return problems

    def read(self, values: Mapping[str, Any], row: int, spec: tasks_pb2.TaskSpec) -> Example:
        """Reads the label by the problem type; where that is open, a list is several labels."""
        text, pair = read_text(values), read_text_pair(values)
        return Example(text, pair, _target(values.get("label"), spec.text_classification), row)

    def settle(self, train: Sequence[Example], spec: tasks_pb2.TaskSpec) -> Facts:
        """Takes the problem type and the labels from the data where the spec leaves them open."""
        full = open_copy(spec)
        ours = full.text_classification
        if not ours.problem_type:
            lists = any(isinstance(example.target, list) for example in train)
            ours.problem_type = MULTI_LABEL if lists else SINGLE_LABEL
        comparable = [e for e in train if isinstance(e.target, list) == (ours.problem_type == MULTI_LABEL)]
        labels = PROBLEMS[ours.problem_type].labels(comparable, ours.labels)
        ours.labels[:] = labels
        return Facts(tuple(labels), full)

    def find_problems(
        self, train: Sequence[Example], validation: Sequence[Example], facts: Facts
    ) -> list[Violation]:
        several = facts.spec.text_classification.problem_type == MULTI_LABEL
        if mixed := [e.row for e in (*train, *validation) if isinstance(e.target, list) != several]:
            kind = "one label" if several else "a list of labels"
            return [Violation(TRAIN, f"{rows_shown(mixed)}: {kind} where other rows have the other kind")]
        return problem_of(facts).find_problems(train, validation, facts.labels)

    def find_stray(self, example: Example, facts: Facts) -> str:
        return problem_of(facts).find_stray(example, facts.labels)

    def strata(self, examples: Sequence[Example]) -> list[str]:
        """Returns the label; sets of labels are too many to balance, and numbers have no strata."""
        return [e.target if isinstance(e.target, str) else "" for e in examples]

    def config(self, facts: Facts) -> dict[str, Any]:
        return super().config(facts) | problem_of(facts).config()

    def targets(self, encoded: Encoded, facts: Facts) -> list[dict[str, Array]]:
        return [{"labels": problem_of(facts).target(encoded.example, facts.labels)}]

    def evaluate(
        self, encoded: Sequence[Encoded], answers: Sequence[Answer], facts: Facts
    ) -> job_pb2.Evaluation:
        examples = [e.example for e in encoded]
        return problem_of(facts).evaluate(stacked(answers, "logits"), examples, facts.labels)

    def compare(
        self,
        encoded: Sequence[Encoded],
        reference: Sequence[Answer],
        candidate: Sequence[Answer],
        facts: Facts,
    ) -> dict[str, float]:
        want, got = stacked(reference, "logits"), stacked(candidate, "logits")
        return problem_of(facts).compare(want, got, encoded, facts)

    def limits(self, precision: job_pb2.Precision.ValueType) -> dict[str, float]:
        return dict(_LIMITS[precision])


def _target(value: Any, spec: tasks_pb2.TextClassificationSpec) -> Any:
    if spec.problem_type == REGRESSION:
        return read_number(value)
    if spec.problem_type == MULTI_LABEL:
        return read_labels(value, spec.label_separator)
    return read_labels(value) if isinstance(value, list) and not spec.problem_type else read_label(value)
