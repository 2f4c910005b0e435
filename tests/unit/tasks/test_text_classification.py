"""Metrics are scikit-learn's, parity figures hide nothing, and scores are a softmax."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

from conch.v1 import job_pb2
from services.tasks import TASKS, Encoded, Example, Facts
from services.tasks.scores import best_labels, softmax
from services.tasks.tensors import Answer

TASK = TASKS["text-classification"]
LABELS = ["a", "b", "c"]
FACTS = Facts(LABELS)


def random_logits(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (rows, 3)).astype(np.float32), rng.integers(0, 3, rows)


def answers(logits: np.ndarray) -> list[Answer]:
    return [[{"logits": row}] for row in logits]


def asked(targets: np.ndarray) -> list[Encoded]:
    return [Encoded(Example("x", "", LABELS[target], 1), ()) for target in targets]


def compared(want: np.ndarray, got: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    return TASK.compare(asked(targets), answers(want), answers(got), FACTS)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60))
@pytest.mark.filterwarnings("ignore")
def test_metrics_are_those_of_scikit_learn(seed: int, rows: int) -> None:
    logits, targets = random_logits(seed, rows)
    found = TASK.evaluate(asked(targets), answers(logits), FACTS)
    predicted = logits.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(
        targets, predicted, labels=[0, 1, 2], zero_division=0
    )
    assert found.num_examples == rows
    assert found.metrics["accuracy"] == pytest.approx(accuracy_score(targets, predicted))
    assert found.metrics["macro_f1"] == pytest.approx(f1.mean())
    assert found.metrics["macro_precision"] == pytest.approx(precision.mean())
    assert found.metrics["macro_recall"] == pytest.approx(recall.mean())
    want_loss = log_loss(targets, softmax(logits).astype(np.float64), labels=[0, 1, 2])
    assert found.metrics["loss"] == pytest.approx(want_loss, rel=1e-4)
    detail = found.classification
    assert [m.label for m in detail.labels] == LABELS
    assert [m.f1 for m in detail.labels] == pytest.approx(list(f1))
    assert [m.num_examples for m in detail.labels] == list(support)
    want_matrix = confusion_matrix(targets, predicted, labels=[0, 1, 2])
    assert list(detail.confusion_matrix) == want_matrix.ravel().tolist()


def test_equal_answers_compare_as_perfect() -> None:
    logits, targets = random_logits(1, 20)
    assert set(compared(logits, logits.copy(), targets).values()) == {0.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_shows_in_the_figures(bad: float) -> None:
    logits, targets = random_logits(1, 20)
    broken = logits.copy()
    broken[3, 1] = bad
    figures = compared(logits, broken, targets)
    assert figures["num_nonfinite"] == 1
    assert figures["label_flip_rate"] == pytest.approx(1 / 20)


def test_answers_that_are_no_numbers_at_all_never_certify() -> None:
    logits, targets = random_logits(1, 20)
    figures = compared(logits, np.full_like(logits, np.nan), targets)
    limits = TASK.limits(job_pb2.PRECISION_INT8)
    assert all(not figures[name] <= limits[name] for name in ("max_abs_logit_difference", "num_nonfinite"))


def test_a_flipped_label_and_a_lost_hit_are_counted() -> None:
    want = np.array([[2, 0], [0, 2]], dtype=np.float32)
    got = np.array([[1.5, 0], [2, 0]], dtype=np.float32)
    figures = compared(want, got, np.array([0, 1]))
    assert figures == {
        "max_abs_logit_difference": 2.0,
        "label_flip_rate": 0.5,
        "accuracy_drop": 0.5,
        "num_nonfinite": 0.0,
    }


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=10))
def test_softmax_gives_shares_that_sum_to_one_without_overflow(row: list[float]) -> None:
    scores = softmax(np.array(row, dtype=np.float32))
    assert np.isfinite(scores).all()
    assert scores.sum() == pytest.approx(1, abs=1e-5)


def test_without_targets_the_reference_s_own_answer_stands_for_them() -> None:
    want, got = np.array([[2.0, 0, 0]], dtype=np.float32), np.array([[0, 2.0, 0]], dtype=np.float32)
    unlabelled = [Encoded(Example("x", "", None, 1), ())]
    assert TASK.compare(unlabelled, answers(want), answers(got), FACTS)["accuracy_drop"] == 1


def test_labels_are_decoded_best_first_and_cut_at_top_k() -> None:
    logits = np.array([0.0, 2.0, 1.0], dtype=np.float32)
    scores = best_labels(logits, LABELS, 0)
    assert [s.label for s in scores] == ["b", "c", "a"]
    assert sum(s.score for s in scores) == pytest.approx(1)
    assert [s.label for s in best_labels(logits, LABELS, 2)] == ["b", "c"]
