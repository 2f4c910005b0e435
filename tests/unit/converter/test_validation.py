"""Conversion specs: what is filled in and what is refused before anything runs."""

import math
from pathlib import Path

import pytest

from conch.v1 import conversion_pb2, job_pb2, models_pb2
from services import storage
from services.converter import validation
from services.errors import InvalidRequest

_ORT, _OPENVINO = job_pb2.RUNTIME_ONNXRUNTIME, job_pb2.RUNTIME_OPENVINO


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    """The URI of a checkpoint that is complete as far as its manifest tells."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    content = models_pb2.CheckpointManifest(task="text-classification", labels=["a", "b"])
    storage.upload(folder, str(folder), models_pb2.Manifest(checkpoint=content))
    return str(folder)


@pytest.fixture
def spec(checkpoint: str) -> conversion_pb2.ConversionSpec:
    """A spec with nothing wrong."""
    return conversion_pb2.ConversionSpec(checkpoint_uri=checkpoint, model="sentiment")


def bad_fields(spec: conversion_pb2.ConversionSpec) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        validation.check(validation.complete(spec))
    return [violation.field for violation in caught.value.violations]


def test_a_plain_spec_passes_with_the_documented_defaults(spec: conversion_pb2.ConversionSpec) -> None:
    full = validation.complete(spec)
    validation.check(full)
    assert [(t.runtime, t.precision) for t in full.targets] == [
        (_ORT, job_pb2.PRECISION_FP32),
        (_OPENVINO, job_pb2.PRECISION_BF16),
    ]
    assert (full.num_parity_examples, full.max_attempts) == (500, 3)
    assert validation.complete(full) == full


def test_a_target_without_precision_gets_its_runtime_s_default(spec: conversion_pb2.ConversionSpec) -> None:
    spec.targets.add(runtime=_OPENVINO)
    assert [t.precision for t in validation.complete(spec).targets] == [job_pb2.PRECISION_BF16]


@pytest.mark.parametrize("precision", [job_pb2.PRECISION_FP32, job_pb2.PRECISION_INT8])
def test_onnxruntime_computes_in_fp32_or_int8(
    spec: conversion_pb2.ConversionSpec, precision: job_pb2.Precision.ValueType
) -> None:
    spec.targets.add(runtime=_ORT, precision=precision)
    validation.check(validation.complete(spec))


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [
        (_ORT, job_pb2.PRECISION_BF16),
        (_OPENVINO, job_pb2.PRECISION_FP32),
        (_OPENVINO, job_pb2.PRECISION_INT8),
    ],
)
def test_a_precision_that_the_runtime_has_not_is_refused(
    spec: conversion_pb2.ConversionSpec,
    runtime: job_pb2.Runtime.ValueType,
    precision: job_pb2.Precision.ValueType,
) -> None:
    spec.targets.add(runtime=runtime, precision=precision)
    assert bad_fields(spec) == ["spec.targets[0].precision"]


def test_a_runtime_has_one_target_at_most(spec: conversion_pb2.ConversionSpec) -> None:
    spec.targets.add(runtime=_ORT, precision=job_pb2.PRECISION_FP32)
    spec.targets.add(runtime=_ORT, precision=job_pb2.PRECISION_INT8)
    assert bad_fields(spec) == ["spec.targets"]


def test_tensorrt_is_refused_as_long_as_nothing_here_builds_plans(
    spec: conversion_pb2.ConversionSpec,
) -> None:
    spec.targets.add(runtime=job_pb2.RUNTIME_TENSORRT)
    assert bad_fields(spec) == ["spec.targets[0].runtime"]


@pytest.mark.parametrize("runtime", [0, 9])
def test_a_target_names_its_runtime(spec: conversion_pb2.ConversionSpec, runtime: int) -> None:
    spec.targets.add(runtime=job_pb2.Runtime.ValueType(runtime))
    assert bad_fields(spec) == ["spec.targets[0].runtime"]


@pytest.mark.parametrize("model", ["", "Sentiment", "1st", "a/b", "..", "m" * 64, "modèle"])
def test_a_model_s_name_is_short_and_plain(spec: conversion_pb2.ConversionSpec, model: str) -> None:
    spec.model = model
    assert bad_fields(spec) == ["spec.model"]


@pytest.mark.parametrize("number", [31, 100_001])
def test_parity_examples_are_neither_too_few_nor_too_many(
    spec: conversion_pb2.ConversionSpec, number: int
) -> None:
    spec.num_parity_examples = number
    assert bad_fields(spec) == ["spec.num_parity_examples"]


def test_a_limit_is_on_a_figure_of_the_task_and_a_number(spec: conversion_pb2.ConversionSpec) -> None:
    spec.limits["label_flip_rate"] = 0.5
    validation.check(validation.complete(spec))
    spec.limits["vibes"] = 1
    assert bad_fields(spec) == ["spec.limits"]
    del spec.limits["vibes"]
    spec.limits["label_flip_rate"] = math.nan
    assert bad_fields(spec) == ["spec.limits[label_flip_rate]"]


def test_a_checkpoint_without_manifest_is_none(spec: conversion_pb2.ConversionSpec, checkpoint: str) -> None:
    (Path(checkpoint) / "manifest.json").unlink()
    assert bad_fields(spec) == ["spec.checkpoint_uri"]


def test_an_artifact_of_another_kind_is_no_checkpoint(
    spec: conversion_pb2.ConversionSpec, checkpoint: str
) -> None:
    version = models_pb2.VersionManifest(model="m", version=1)
    storage.upload(Path(checkpoint), checkpoint, models_pb2.Manifest(version=version))
    assert bad_fields(spec) == ["spec.checkpoint_uri"]


def test_everything_wrong_is_told_at_once() -> None:
    spec = conversion_pb2.ConversionSpec(max_attempts=11)
    assert bad_fields(spec) == ["spec.model", "spec.max_attempts", "spec.checkpoint_uri"]


@pytest.mark.parametrize("uri", ["~nobody-here/x", "a\0b", "x" * 5000, "ftp://host/x", "/dev/null"])
def test_a_uri_that_no_checkpoint_can_have_is_refused(spec: conversion_pb2.ConversionSpec, uri: str) -> None:
    spec.checkpoint_uri = uri
    assert bad_fields(spec) == ["spec.checkpoint_uri"]
