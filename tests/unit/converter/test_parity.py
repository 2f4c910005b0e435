"""Parity covers every example once, alone and in padded batches, and finds what is wrong with a graph."""

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from conch.v1 import conversion_pb2, job_pb2
from services import storage
from services.converter import parity
from services.converter.parity import Held
from services.errors import Cancelled
from services.tasks import Example
from tests.unit.converter.conftest import Exported

FP32 = conversion_pb2.Target(runtime=job_pb2.RUNTIME_ONNXRUNTIME, precision=job_pb2.PRECISION_FP32)
BF16 = conversion_pb2.Target(runtime=job_pb2.RUNTIME_OPENVINO, precision=job_pb2.PRECISION_BF16)


@pytest.fixture(scope="module")
def held(two_labels: Exported) -> Held:
    return _hold(two_labels)


def test_every_example_counts_once_some_alone_and_most_in_padded_batches(
    two_labels: Exported, held: Held
) -> None:
    batches = held.plan.batches
    rows = [len(batch["input_ids"]) for batch in batches]
    assert sum(rows) == len(held.plan.encoded) == len(two_labels.source.held_out)
    assert sorted(i for members in held.plan.members for i in members) == list(range(sum(rows)))
    assert rows.count(1) >= 8
    padding = [int((batch["attention_mask"] == 0).sum()) for batch in batches]
    assert all(p == 0 for n, p in zip(rows, padding, strict=True) if n == 1)
    assert all(p > 0 for n, p in zip(rows, padding, strict=True) if n > 1)


def test_the_reference_lies_in_the_order_of_the_examples(held: Held) -> None:
    # The checkpoint's labels are its own answers.
    labels = held.plan.facts.labels
    answered = [labels[int(answer[0]["logits"].argmax())] for answer in held.reference]
    assert answered == [encoded.example.target for encoded in held.plan.encoded]


def test_a_faithful_graph_passes_and_its_file_is_named_by_digest(
    two_labels: Exported, held: Held, tmp_path: Path
) -> None:
    shutil.copy(two_labels.portable, tmp_path / "model.onnx")
    verdict = _judge(held, tmp_path, FP32)
    assert verdict.passed
    assert verdict.num_examples == 64
    assert dict(verdict.files) == {"model.onnx": storage.sha256_of(tmp_path / "model.onnx")}
    figures = {figure.name: figure.value for figure in verdict.figures}
    assert figures["max_abs_logit_difference"] < 5e-6
    assert figures["label_flip_rate"] == 0


def test_openvino_in_bf16_is_near_and_is_really_bf16(
    two_labels: Exported, held: Held, tmp_path: Path
) -> None:
    shutil.copy(two_labels.portable, tmp_path / "openvino.onnx")
    verdict = _judge(held, tmp_path, BF16)
    assert verdict.passed
    assert 1e-5 < _figures(verdict)["max_abs_logit_difference"].value < 0.1


def test_changed_weights_fail_and_the_figure_says_so(
    two_labels: Exported, held: Held, tmp_path: Path
) -> None:
    _poison(two_labels.portable, tmp_path / "model.onnx", lambda weights: -weights)
    verdict = _judge(held, tmp_path, FP32)
    assert not verdict.passed
    assert not _figures(verdict)["label_flip_rate"].passed
    assert _figures(verdict)["label_flip_rate"].value > 0.5


def test_nan_fails_by_count(two_labels: Exported, held: Held, tmp_path: Path) -> None:
    _poison(two_labels.portable, tmp_path / "model.onnx", lambda weights: weights * math.nan)
    figure = _figures(_judge(held, tmp_path, FP32))["num_nonfinite"]
    assert (figure.passed, figure.value) == (False, 2 * len(held.plan.encoded))


def test_limits_of_the_order_replace_the_task_s(two_labels: Exported, held: Held, tmp_path: Path) -> None:
    shutil.copy(two_labels.portable, tmp_path / "model.onnx")
    verdict = _judge(held, tmp_path, FP32, {"max_abs_logit_difference": 0.0})
    figure = _figures(verdict)["max_abs_logit_difference"]
    assert (verdict.passed, figure.passed, figure.limit) == (False, False, 0.0)


def test_work_stops_between_batches_when_asked(two_labels: Exported) -> None:
    asked = iter([False, False, True])

    def check() -> None:
        if next(asked):
            raise Cancelled("enough", reason="JOB_CANCELLED")

    with pytest.raises(Cancelled):
        _hold(two_labels, check)


def test_pairs_are_read_as_pairs(two_labels: Exported) -> None:
    examples = [Example("good", "bad film", None, 1), Example("good", "", None, 2)]
    pair, single = (two_labels.source.encode([e])[0].windows[0] for e in examples)
    assert (pair.token_type_ids, single.token_type_ids) == ([0, 0, 0, 1, 1, 1], [0, 0, 0])


def _hold(exported: Exported, check: Callable[[], None] = lambda: None) -> Held:
    return parity.hold(exported.source, exported.inputs, num_examples=64, check=check)


def _judge(
    held: Held, folder: Path, target: conversion_pb2.Target, limits: Mapping[str, float] | None = None
) -> job_pb2.Verdict:
    return parity.judge(target, held, folder=folder, limits=limits or {}, check=lambda: None)


def _figures(verdict: job_pb2.Verdict) -> dict[str, job_pb2.Figure]:
    return {figure.name: figure for figure in verdict.figures}


def _poison(source: Path, target: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    graph = onnx.load_model(source)
    head = next(w for w in graph.graph.initializer if w.name.endswith("classifier.weight"))
    head.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(head)), head.name))
    onnx.save_model(graph, target)
