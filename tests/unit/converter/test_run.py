"""The worker from order to published version, over tiny models and a repository on disk."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from google.protobuf import json_format

from conch.v1 import conversion_pb2, job_pb2, models_pb2, worker_pb2
from services import storage
from services.converter import run as converter
from services.errors import Cancelled, NotReady
from services.jobs.reporting import Reporter
from services.jobs.spool import read_spool
from services.repository import certificates, versions
from tests.unit.converter import checkpoints

FP32 = conversion_pb2.Target(runtime=job_pb2.RUNTIME_ONNXRUNTIME, precision=job_pb2.PRECISION_FP32)
INT8 = conversion_pb2.Target(runtime=job_pb2.RUNTIME_ONNXRUNTIME, precision=job_pb2.PRECISION_INT8)
BF16 = conversion_pb2.Target(runtime=job_pb2.RUNTIME_OPENVINO, precision=job_pb2.PRECISION_BF16)


@dataclass(frozen=True)
class Converted:
    """A conversion that went well, and where everything of it lies."""

    order: worker_pb2.WorkOrder
    result: conversion_pb2.ConversionResult
    spool: Path
    folder: Path


@pytest.fixture(scope="module")
def checkpoint_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("artifacts") / "job"
    return checkpoints.save(folder, checkpoints.bert(["bad", "good"]), ["bad", "good"])


@pytest.fixture(scope="module")
def converted(checkpoint_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """A conversion to onnxruntime int8 and openvino bf16, after a killed attempt."""
    folder = tmp_path_factory.mktemp("converted")
    order = _order(checkpoint_uri, folder, [INT8, BF16])
    stale = Path(order.work_dir) / "conversion" / "version"
    stale.mkdir(parents=True)
    (stale / "leftover.onnx").write_bytes(b"half a graph")
    result = converter.run(order, Reporter(folder / "spool"))
    return Converted(order, result, folder / "spool", folder / "repository" / "sentiment" / "3")


def test_a_version_holds_what_the_layout_says_and_nothing_of_a_killed_attempt(converted: Converted) -> None:
    assert {path.name for path in converted.folder.iterdir()} == {
        "model.onnx",
        "openvino.onnx",
        "tokenizer.json",
        "golden.json",
        "certificate.json",
        "manifest.json",
    }
    assert os.listdir(converted.order.work_dir) == [], "a published version leaves no scratch files"


def test_the_published_version_is_certified_for_both_runtimes(converted: Converted) -> None:
    published = versions.read_version(converted.order.output_uri, "sentiment", 3)
    assert (published.digest, published.uri) == (converted.result.digest, converted.result.uri)
    assert published.certificate == converted.result.certificate
    for runtime in (job_pb2.RUNTIME_ONNXRUNTIME, job_pb2.RUNTIME_OPENVINO):
        assert certificates.check(published, runtime).passed


def test_int8_is_for_onnxruntime_and_openvino_keeps_the_portable_graph(converted: Converted) -> None:
    int8, portable = (converted.folder / name for name in ("model.onnx", "openvino.onnx"))
    assert int8.stat().st_size < portable.stat().st_size
    verdicts = converted.result.certificate.verdicts
    files = {name: verdict.precision for verdict in verdicts for name in verdict.files}
    assert files == {"model.onnx": job_pb2.PRECISION_INT8, "openvino.onnx": job_pb2.PRECISION_BF16}


def test_the_manifest_says_where_the_version_came_from(converted: Converted, checkpoint_uri: str) -> None:
    manifest = versions.read_version(converted.order.output_uri, "sentiment", 3).manifest
    source, digest = storage.read_manifest(checkpoint_uri)
    assert (manifest.conversion_job, manifest.checkpoint_uri) == ("convert-1", checkpoint_uri)
    assert (manifest.checkpoint_digest, manifest.checkpoint) == (digest, source.checkpoint)
    assert manifest.opset == 20
    assert manifest.libraries["onnxruntime"]


def test_golden_examples_travel_unchanged(converted: Converted, checkpoint_uri: str) -> None:
    trained = Path(checkpoint_uri) / "golden.json"
    assert (converted.folder / "golden.json").read_bytes() == trained.read_bytes()


def test_events_tell_the_stages_the_verdicts_and_the_artifact(converted: Converted) -> None:
    events = _events(converted.spool)
    stages = [e.stage_started for e in events if e.HasField("stage_started")]
    assert [stage.name for stage in stages] == [
        "download",
        "export",
        "optimize",
        "quantize",
        "reference",
        "parity onnxruntime int8",
        "parity openvino bf16",
        "publish",
    ]
    assert [stage.index for stage in stages] == list(range(1, 9))
    assert {stage.num_stages for stage in stages} == {8}
    assert [e.verdict.passed for e in events if e.HasField("verdict")] == [True, True]
    assert events[-1].artifact_written.kind == "version"


def test_an_attempt_after_a_published_one_returns_the_same_version(
    converted: Converted, tmp_path: Path
) -> None:
    again = Reporter(tmp_path / "again")
    assert converter.run(converted.order, again) == converted.result
    assert [e.WhichOneof("event") for e in _events(tmp_path / "again")] == ["artifact_written"]


def test_without_int8_both_runtimes_share_one_graph(checkpoint_uri: str, tmp_path: Path) -> None:
    converter.run(_order(checkpoint_uri, tmp_path, [FP32, BF16]), Reporter(tmp_path / "spool"))
    folder = tmp_path / "repository" / "sentiment" / "3"
    assert storage.sha256_of(folder / "model.onnx") == storage.sha256_of(folder / "openvino.onnx")


def test_without_openvino_there_is_no_graph_for_it(checkpoint_uri: str, tmp_path: Path) -> None:
    converter.run(_order(checkpoint_uri, tmp_path, [FP32]), Reporter(tmp_path / "spool"))
    assert not (tmp_path / "repository" / "sentiment" / "3" / "openvino.onnx").exists()


def test_a_failed_certificate_reports_every_verdict_and_publishes_nothing(
    checkpoint_uri: str, tmp_path: Path
) -> None:
    order = _order(checkpoint_uri, tmp_path, [FP32, BF16])
    order.conversion.limits["max_abs_logit_difference"] = 1e-12
    with pytest.raises(NotReady) as refused:
        converter.run(order, Reporter(tmp_path / "spool"))
    assert refused.value.reason == "CERTIFICATE_FAILED"
    for words in ("onnxruntime fp32", "openvino bf16", "max_abs_logit_difference", "1e-12"):
        assert words in refused.value.message
    verdicts = [e.verdict for e in _events(tmp_path / "spool") if e.HasField("verdict")]
    assert [verdict.passed for verdict in verdicts] == [False, False]
    assert versions.list_versions(order.output_uri, "sentiment") == []


def test_a_cancelled_worker_stops_and_publishes_nothing(checkpoint_uri: str, tmp_path: Path) -> None:
    order, report = _order(checkpoint_uri, tmp_path, [FP32]), Reporter(tmp_path / "spool")
    report.cancel()
    with pytest.raises(Cancelled):
        converter.run(order, report)
    assert versions.list_versions(order.output_uri, "sentiment") == []


def test_golden_examples_of_other_weights_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    checkpoints.save(folder, checkpoints.bert(["bad", "good"]), ["bad", "good"])
    golden = json_format.Parse((folder / "golden.json").read_text(), models_pb2.GoldenExamples())
    golden.examples[5].windows[0].outputs["logits"].values[0] += 0.1
    (folder / "golden.json").write_text(json_format.MessageToJson(golden))
    manifest, _ = storage.read_manifest(str(folder))
    (folder / "manifest.json").unlink()
    storage.upload(folder, str(folder), manifest)
    with pytest.raises(NotReady) as refused:
        converter.run(_order(str(folder), tmp_path, [FP32]), Reporter(tmp_path / "spool"))
    assert refused.value.reason == "GOLDEN_MISMATCH"


def _order(
    checkpoint_uri: str, tmp_path: Path, targets: Sequence[conversion_pb2.Target]
) -> worker_pb2.WorkOrder:
    spec = conversion_pb2.ConversionSpec(
        checkpoint_uri=checkpoint_uri,
        model="sentiment",
        targets=targets,
        num_parity_examples=48,
        max_attempts=3,
    )
    return worker_pb2.WorkOrder(
        job_id="convert-1",
        attempt=1,
        conversion=spec,
        work_dir=str(tmp_path / "work"),
        output_uri=str(tmp_path / "repository"),
        version=3,
    )


def _events(path: Path) -> list[job_pb2.JobEvent]:
    return [report.event for report in read_spool(path) if report.HasField("event")]
