"""Training specs: what is filled in and what is refused before anything runs."""

import math
from pathlib import Path
from typing import Any

import pytest

from conch.v1 import job_pb2, training_pb2
from services.errors import InvalidRequest
from services.trainer import validation


@pytest.fixture
def spec(tmp_path: Path) -> training_pb2.TrainingSpec:
    """A spec with nothing wrong."""
    (tmp_path / "train.jsonl").write_text("{}")
    return training_pb2.TrainingSpec(
        task="text-classification",
        base_model="some/model",
        dataset=training_pb2.Dataset(train_uri=str(tmp_path / "train.jsonl")),
    )


def bad_fields(spec: training_pb2.TrainingSpec) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        validation.check(validation.complete(spec))
    return [violation.field for violation in caught.value.violations]


def test_a_plain_spec_passes_with_the_documented_defaults(spec: training_pb2.TrainingSpec) -> None:
    full = validation.complete(spec)
    validation.check(full)
    assert full.max_attempts == 3
    assert full.dataset.validation_fraction == 0.1
    assert (full.hyperparameters.num_epochs, full.hyperparameters.max_length) == (3, 256)


def test_completing_twice_changes_nothing(spec: training_pb2.TrainingSpec) -> None:
    full = validation.complete(spec)
    assert validation.complete(full) == full


def test_zero_stays_zero_where_it_means_something(spec: training_pb2.TrainingSpec) -> None:
    spec.hyperparameters.warmup_ratio = 0
    spec.hyperparameters.early_stopping_patience = 0
    spec.hyperparameters.seed = 0
    full = validation.complete(spec).hyperparameters
    validation.check(validation.complete(spec))
    assert (full.warmup_ratio, full.early_stopping_patience, full.seed) == (0, 0, 0)


def test_relative_paths_mean_the_same_in_a_worker(
    spec: training_pb2.TrainingSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    spec.dataset.train_uri, spec.base_model = "train.jsonl", "base"
    full = validation.complete(spec)
    assert (full.dataset.train_uri, full.base_model) == (
        str(tmp_path / "train.jsonl"),
        str(tmp_path / "base"),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_epochs", -1.0),
        ("num_epochs", 100.5),
        ("num_epochs", math.nan),
        ("learning_rate", 1.1),
        ("learning_rate", -1e-9),
        ("batch_size", 1025),
        ("gradient_accumulation_steps", 1025),
        ("warmup_ratio", 1.0),
        ("warmup_ratio", -0.1),
        ("weight_decay", 1.01),
        ("weight_decay", math.inf),
        ("max_length", 7),
        ("max_length", 8193),
        ("early_stopping_patience", 101),
        ("evaluations_per_epoch", 101),
        ("num_threads", 257),
        ("precision", job_pb2.PRECISION_INT8),
    ],
)
def test_a_hyperparameter_out_of_range_is_named(
    spec: training_pb2.TrainingSpec, name: str, value: float
) -> None:
    setattr(spec.hyperparameters, name, value)
    assert bad_fields(spec) == [f"spec.hyperparameters.{name}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_epochs", 100.0),
        ("learning_rate", 1.0),
        ("batch_size", 1024),
        ("weight_decay", 1.0),
        ("max_length", 8),
        ("max_length", 8192),
        ("early_stopping_patience", 100),
        ("num_threads", 256),
    ],
)
def test_the_ends_of_a_range_belong_to_it(spec: training_pb2.TrainingSpec, name: str, value: float) -> None:
    setattr(spec.hyperparameters, name, value)
    validation.check(validation.complete(spec))


@pytest.mark.parametrize(
    ("name", "value", "fields"),
    [
        ("train_uri", "", ["train_uri"]),
        ("train_uri", "/no/such/file", ["train_uri"]),
        ("train_uri", "/", ["train_uri"]),
        ("train_uri", "ftp://somewhere/file", ["train_uri"]),
        ("validation_uri", "/no/such/file", ["validation_uri"]),
        ("validation_fraction", 0.6, ["validation_fraction"]),
        ("validation_fraction", -0.1, ["validation_fraction"]),
        ("format", 99, ["format"]),
    ],
)
def test_a_dataset_that_cannot_be_read_is_named(
    spec: training_pb2.TrainingSpec, name: str, value: Any, fields: list[str]
) -> None:
    setattr(spec.dataset, name, value)
    assert bad_fields(spec) == [f"spec.dataset.{field}" for field in fields]


def test_columns_have_roles_that_the_task_knows(spec: training_pb2.TrainingSpec) -> None:
    spec.dataset.columns["mood"] = "m"
    assert bad_fields(spec) == ["spec.dataset.columns"]


@pytest.mark.parametrize("labels", [["one"], ["a", "a"], ["a", ""]])
def test_labels_differ_and_are_two_at_least(spec: training_pb2.TrainingSpec, labels: list[str]) -> None:
    spec.task_spec.text_classification.labels.extend(labels)
    assert bad_fields(spec) == ["spec.task_spec.text_classification.labels"]


@pytest.mark.parametrize("base_model", ["", "/no/such/folder", "./nothing", "ftp://x/y"])
def test_a_base_model_that_cannot_be_is_named(spec: training_pb2.TrainingSpec, base_model: str) -> None:
    spec.base_model = base_model
    assert bad_fields(spec) == ["spec.base_model"]


def test_everything_wrong_is_told_at_once() -> None:
    spec = training_pb2.TrainingSpec(max_attempts=11)
    assert bad_fields(spec) == ["spec.task", "spec.max_attempts", "spec.base_model", "spec.dataset.train_uri"]


def test_an_unknown_task_says_which_are_known(spec: training_pb2.TrainingSpec) -> None:
    spec.task = "mind-reading"
    with pytest.raises(InvalidRequest, match="text-classification") as caught:
        validation.check(validation.complete(spec))
    assert caught.value.reason == "UNKNOWN_TASK"


def test_a_remote_file_is_not_asked_for(spec: training_pb2.TrainingSpec) -> None:
    spec.dataset.train_uri = "s3://bucket/train.jsonl"
    validation.check(validation.complete(spec))


@pytest.mark.parametrize("uri", ["~nobody-here/x", "a\0b", "x" * 5000, "/" + "y" * 300, "file:///\0"])
def test_a_path_that_no_file_can_have_is_refused_like_any_other(
    spec: training_pb2.TrainingSpec, uri: str
) -> None:
    spec.dataset.train_uri = uri
    assert bad_fields(spec) == ["spec.dataset.train_uri"]
    spec.base_model = "/" + uri
    assert "spec.base_model" in bad_fields(spec)
