"""The data of a run is checked as a whole: everything that is wrong comes in one answer."""

import json
from pathlib import Path
from typing import Any

import pytest

from conch.v1 import tasks_pb2, training_pb2
from services.errors import InvalidRequest
from services.jobs.reporting import Reporter
from services.jobs.spool import read_spool
from services.tasks import TASKS
from services.trainer.dataset import Splits, digest, load
from services.trainer.defaults import with_defaults

Rows = list[tuple[str, Any]]
FINE: Rows = [(f"text {i}", "ab"[i % 2]) for i in range(40)]


def write(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return str(path)


def loaded(
    tmp_path: Path, train: Rows, validation: Rows = (), labels: tuple[str, ...] = (), **dataset: Any
) -> Splits:  # type: ignore[assignment]
    spec = training_pb2.TrainingSpec(
        task="text-classification",
        dataset=training_pb2.Dataset(train_uri=write(tmp_path / "train.jsonl", train), **dataset),
        task_spec=tasks_pb2.TaskSpec(text_classification=tasks_pb2.TextClassificationSpec(labels=labels)),
    )
    if validation:
        spec.dataset.validation_uri = write(tmp_path / "validation.jsonl", validation)
    report = Reporter(tmp_path / "spool")
    return load(with_defaults(spec), TASKS[spec.task], scratch=tmp_path / "data", report=report)


def problems(tmp_path: Path, *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        loaded(tmp_path, *args, **kwargs)
    return [(v.field.removeprefix("spec."), v.description) for v in caught.value.violations]


def test_a_validation_split_is_cut_where_none_is_given(tmp_path: Path) -> None:
    splits = loaded(tmp_path, FINE)
    assert (len(splits.train), len(splits.validation), splits.facts.labels) == (36, 4, ("a", "b"))


def test_a_given_validation_split_is_used_as_it_is(tmp_path: Path) -> None:
    splits = loaded(tmp_path, FINE, [("held out", "a")])
    assert (len(splits.train), [e.text for e in splits.validation]) == (40, ["held out"])


def test_both_splits_can_be_sampled(tmp_path: Path) -> None:
    splits = loaded(tmp_path, FINE, max_train_examples=10, max_validation_examples=2)
    assert (len(splits.train), len(splits.validation)) == (10, 2)


def test_numeric_labels_are_ordered_as_numbers(tmp_path: Path) -> None:
    rows = [(f"{label} {i}", label) for label in (10, 2, 1) for i in range(3)]
    assert loaded(tmp_path, rows).facts.labels == ("1", "2", "10")


def test_the_order_of_labels_can_be_given(tmp_path: Path) -> None:
    assert loaded(tmp_path, FINE, labels=("b", "a")).facts.labels == ("b", "a")


def test_a_single_label_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, [("x", "a"), ("y", "a")]) == [
        ("dataset.train_uri", "a classifier needs two labels, found only the label 'a'")
    ]


def test_a_label_that_training_never_saw_is_refused_with_its_rows(tmp_path: Path) -> None:
    assert problems(tmp_path, FINE, [("x", "a"), ("y", "c"), ("z", "c")]) == [
        ("dataset.validation_uri", "label 'c' (rows 2, 3) never occurs in the training split")
    ]


def test_labels_and_data_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, FINE, labels=("a", "z")) == [
        ("task_spec.text_classification.labels", "the training split has no example of 'z'"),
        (
            "dataset.train_uri",
            "label 'b' (rows 2, 4, 6, 8, 10, ... (20 in all)) is not among the spec's labels",
        ),
    ]


def test_everything_that_is_wrong_comes_in_one_answer(tmp_path: Path) -> None:
    train, validation = [("", "a"), ("x", "a"), ("y", "b")], [("X", "a"), ("q", None), ("r", "c")]
    assert problems(tmp_path, train, validation) == [
        ("dataset.train_uri", "row 1: text is empty"),
        ("dataset.validation_uri", "row 2: label is missing"),
        ("dataset.validation_uri", "label 'c' (row 3) never occurs in the training split"),
        ("dataset.validation_uri", "texts that the training split holds too: row 1 = training row 2"),
    ]


def test_a_file_of_broken_rows_alone_says_only_that(tmp_path: Path) -> None:
    assert problems(tmp_path, [("", "a"), ("", "b")]) == [("dataset.train_uri", "rows 1, 2: text is empty")]


def test_duplicates_are_warned_of_and_do_not_stop_the_run(tmp_path: Path) -> None:
    loaded(tmp_path, [*FINE, ("text 0", "b")])
    reasons = [report.event.warning.reason for report in read_spool(tmp_path / "spool")]
    assert reasons == ["DUPLICATE_TEXTS", "CONFLICTING_LABELS"]


def test_a_digest_tells_examples_apart_and_ignores_where_they_stood(tmp_path: Path) -> None:
    splits = loaded(tmp_path, FINE)
    assert digest(splits.train) == digest(loaded(tmp_path, FINE).train)
    assert digest(splits.train) != digest(splits.train[1:])
