"""The problem types of text-classification by their enum value, one module each.

Knows which there are.
"""

from services.tasks.example import Facts
from services.tasks.text_classification.label_problem import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    LabelProblem,
)
from services.tasks.text_classification.multi_label import MultiLabel
from services.tasks.text_classification.regression import Regression
from services.tasks.text_classification.single_label import SingleLabel

PROBLEMS: dict[int, LabelProblem] = {
    SINGLE_LABEL: SingleLabel(),
    MULTI_LABEL: MultiLabel(),
    REGRESSION: Regression(),
}


def problem_of(facts: Facts) -> LabelProblem:
    """Returns the problem type of a model; one label where its checkpoint is older than the choice."""
    return PROBLEMS[facts.spec.text_classification.problem_type or SINGLE_LABEL]
