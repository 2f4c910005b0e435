"""Several labels a text, and numbers: metrics are scikit-learn's and scipy's kind, bad rows are named."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss, mean_absolute_error, mean_squared_error

from conch.v1 import tasks_pb2
from services.tasks import TASKS, Encoded, Example, Facts
from services.tasks.correlations import correlation, ranks
from services.tasks.scores import sigmoid
from services.tasks.tensors import Answer
from services.tasks.text_classification.label_problem import MULTI_LABEL, REGRESSION, SINGLE_LABEL

TASK = TASKS["text-classification"]
LABELS = ("a", "b", "c")


def spec(problem_type: Any = 0, **fields: Any) -> tasks_pb2.TaskSpec:
    ours = tasks_pb2.TextClassificationSpec(problem_type=problem_type, **fields)
    return tasks_pb2.TaskSpec(text_classification=ours)


def facts(problem_type: Any) -> Facts:
    return Facts(() if problem_type == REGRESSION else LABELS, spec(problem_type))


def encoded(targets: Any) -> list[Encoded]:
    return [Encoded(Example("x", "", target, i), ()) for i, target in enumerate(targets, start=1)]


def answers(logits: Any) -> list[Answer]:
    return [[{"logits": np.asarray(row, dtype=np.float32)}] for row in logits]


def read(label: Any, asked: tasks_pb2.TaskSpec) -> Any:
    return TASK.read({"text": "fine", "label": label}, 1, asked).target


def test_a_list_in_a_row_makes_the_problem_multi_label() -> None:
    train = [Example("x", "", read(label, spec()), 1) for label in (["b", "a"], [], ["a", "a"])]
    settled = TASK.settle(train, spec())
    assert settled.spec.text_classification.problem_type == MULTI_LABEL
    assert settled.labels == ("a", "b")
    assert [e.target for e in train] == [["b", "a"], [], ["a"]]
    assert TASK.find_problems(train, [], settled) == []


def test_a_file_without_lists_holds_labels_apart_by_a_separator() -> None:
    assert read("sport| news |", spec(MULTI_LABEL)) == ["sport", "news"]
    assert read("a;b|c", spec(MULTI_LABEL, label_separator=";")) == ["a", "b|c"]
    assert read("", spec(MULTI_LABEL)) == []


def test_rows_of_both_kinds_are_named() -> None:
    train = [Example("x", "", ["a"], 1), Example("y", "", "b", 2), Example("z", "", ["b"], 3)]
    (problem,) = TASK.find_problems(train, [], TASK.settle(train, spec()))
    assert problem.description.startswith("row 2: one label where other rows have the other kind")


def test_a_label_outside_the_spec_or_the_training_split_is_named_with_its_rows() -> None:
    train = [Example("x", "", ["a", "z"], 1), Example("y", "", ["b"], 2)]
    held_out = [Example("v", "", ["c"], 7)]
    asked = spec(MULTI_LABEL, labels=["a", "b"])
    found = [p.description for p in TASK.find_problems(train, held_out, TASK.settle(train, asked))]
    assert found == [
        "label 'z' (row 1) is not among the spec's labels",
        "label 'c' (row 7) never occurs in the training split",
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40))
@pytest.mark.filterwarnings("ignore")
def test_multi_label_metrics_are_those_of_scikit_learn(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(0, 2, (rows, 3)).astype(np.float32), rng.integers(0, 2, (rows, 3))
    named = [[label for label, fits in zip(LABELS, row, strict=True) if fits] for row in targets]
    found = TASK.evaluate(encoded(named), answers(logits), facts(MULTI_LABEL))
    predicted = (logits > 0).astype(int)
    for average in ("micro", "macro"):
        want = f1_score(targets, predicted, average=average, zero_division=0)
        assert found.metrics[f"{average}_f1"] == pytest.approx(want)
    assert found.metrics["exact_match"] == pytest.approx((targets == predicted).all(axis=1).mean())
    flat = sigmoid(logits.astype(np.float64)).astype(np.float64).ravel()
    assert found.metrics["loss"] == pytest.approx(log_loss(targets.ravel(), flat, labels=[0, 1]), rel=1e-4)
    assert not found.classification.confusion_matrix


def test_a_multi_label_answer_scores_each_label_by_itself() -> None:
    rpc: Any = TASK.rpcs["Classify"]
    served: Any = type("Served", (), {"facts": facts(MULTI_LABEL)})()
    from conch.v1 import inference_pb2

    request = inference_pb2.ClassifyRequest(texts=["x"], top_k=2)
    (found,) = rpc.respond(request, encoded([None]), answers([[0, 9, -9]]), served).classifications
    assert [s.label for s in found.labels] == ["b", "a"]
    assert [s.score for s in found.labels] == pytest.approx([1 / (1 + math.exp(-9)), 0.5])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=30))
def test_ranks_are_from_one_and_ties_share_their_mean(values: list[int]) -> None:
    ours = ranks(np.array(values, dtype=np.float64))
    want = [
        np.mean([i for i, other in enumerate(sorted(values), start=1) if other == value]) for value in values
    ]
    assert ours.tolist() == pytest.approx(want)


def test_regression_metrics_are_correlations_and_errors() -> None:
    rng = np.random.default_rng(4)
    targets = rng.normal(3, 2, 50)
    values = targets + rng.normal(0, 0.5, 50)
    found = TASK.evaluate(encoded(targets.tolist()), answers(values[:, None]), facts(REGRESSION)).metrics
    exact = values.astype(np.float32)
    assert found["mean_absolute_error"] == pytest.approx(mean_absolute_error(targets, exact), rel=1e-5)
    assert found["loss"] == pytest.approx(mean_squared_error(targets, exact), rel=1e-5)
    assert found["pearson"] == pytest.approx(np.corrcoef(targets, values)[0, 1], rel=1e-5)
    assert 0.9 < found["spearman"] <= 1
    assert correlation(np.ones(3), np.arange(3.0)) == 0


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("high", "'high' is no number"),
        (math.nan, "no finite number"),
        (None, "missing"),
        ("inf", "no finite"),
    ],
)
def test_what_is_no_number_is_refused(value: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read(value, spec(REGRESSION))


def test_a_regression_has_numbers_that_differ_and_no_labels() -> None:
    alike = [Example("x", "", 1.0, 1), Example("y", "", 1.0, 2)]
    found = TASK.find_problems(alike, [], TASK.settle(alike, spec(REGRESSION)))
    assert [p.description for p in found] == ["a regression needs two different numbers"]
    assert [p.description for p in TASK.check_spec(spec(REGRESSION, labels=["a", "b"]))] == [
        "a regression has no labels"
    ]
    assert TASK.config(facts(REGRESSION)) == {"problem_type": "regression", "num_labels": 1}


def test_regression_parity_is_on_the_scale_of_the_model_s_own_numbers() -> None:
    want = np.array([[0.0], [1000.0]])
    figures = TASK.compare(encoded([0.0, 1.0]), answers(want), answers(want + 5), facts(REGRESSION))
    assert figures == {"max_difference_in_deviations": pytest.approx(0.01), "num_nonfinite": 0.0}


@pytest.mark.parametrize("problem_type", [SINGLE_LABEL, MULTI_LABEL, REGRESSION])
def test_nan_is_counted_and_never_certifies(problem_type: Any) -> None:
    width = 1 if problem_type == REGRESSION else 3
    want = np.arange(2.0 * width).reshape(2, width)
    broken = np.full_like(want, np.nan)
    figures = TASK.compare(encoded([None, None]), answers(want), answers(broken), facts(problem_type))
    assert figures["num_nonfinite"] == 2 * width
    assert any(not value <= TASK.limits(1)[name] for name, value in figures.items())
