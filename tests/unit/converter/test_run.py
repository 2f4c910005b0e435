"""The worker from order to published version, over tiny models and a repository on disk."""

import os
from collections.abc import Sequence
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


@pytest.fixture(scope="module")
def checkpoint_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("artifacts") / "job"
    return checkpoints.save(folder, checkpoints.bert(["bad", "good"]), ["bad", "good"])


def test_the_default_targets_share_one_graph(checkpoint_uri: str, tmp_path: Path) -> None:
    order = _order(checkpoint_uri, tmp_path, [FP32, BF16])
    result = converter.run(order, Reporter(tmp_path / "spool"))
    folder = tmp_path / "repository" / "sentiment" / "3"
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx",
        "openvino.onnx",
        "tokenizer.json",
        "golden.json",
        "certificate.json",
        "manifest.json",
    }
    assert storage.sha256_of(folder / "model.onnx") == storage.sha256_of(folder / "openvino.onnx")
    published = versions.read_version(order.output_uri, "sentiment", 3)
    assert (published.digest, published.uri) == (result.digest, result.uri)
    assert published.certificate == result.certificate
    for runtime in (job_pb2.RUNTIME_ONNXRUNTIME, job_pb2.RUNTIME_OPENVINO):
        assert certificates.check(published, runtime).passed


def test_the_manifest_says_where_the_version_came_from(checkpoint_uri: str, tmp_path: Path) -> None:
    order = _order(checkpoint_uri, tmp_path, [FP32])
    converter.run(order, Reporter(tmp_path / "spool"))
    manifest = versions.read_version(order.output_uri, "sentiment", 3).manifest
    source, digest = storage.read_manifest(checkpoint_uri)
    assert (manifest.conversion_job, manifest.checkpoint_uri) == ("convert-1", checkpoint_uri)
    assert (manifest.checkpoint_digest, manifest.checkpoint) == (digest, source.checkpoint)
    assert manifest.opset == 20
    assert manifest.libraries["onnxruntime"]


def test_int8_is_for_onnxruntime_and_openvino_keeps_the_portable_graph(
    checkpoint_uri: str, tmp_path: Path
) -> None:
    result = converter.run(_order(checkpoint_uri, tmp_path, [INT8, BF16]), Reporter(tmp_path / "spool"))
    folder = tmp_path / "repository" / "sentiment" / "3"
    assert (folder / "model.onnx").stat().st_size < (folder / "openvino.onnx").stat().st_size
    files = {verdict.file: verdict.precision for verdict in result.certificate.verdicts}
    assert files == {"model.onnx": job_pb2.PRECISION_INT8, "openvino.onnx": job_pb2.PRECISION_BF16}


def test_events_tell_the_stages_the_verdicts_and_the_artifact(checkpoint_uri: str, tmp_path: Path) -> None:
    converter.run(_order(checkpoint_uri, tmp_path, [INT8, BF16]), Reporter(tmp_path / "spool"))
    events = _events(tmp_path / "spool")
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


def test_leftovers_of_a_killed_attempt_do_no_harm(checkpoint_uri: str, tmp_path: Path) -> None:
    order = _order(checkpoint_uri, tmp_path, [FP32])
    stale = Path(order.work_dir) / "conversion" / "version"
    stale.mkdir(parents=True)
    (stale / "model.onnx").write_bytes(b"half a graph")
    (stale / "openvino.onnx").write_bytes(b"of a target that was dropped")
    converter.run(order, Reporter(tmp_path / "spool"))
    assert not (tmp_path / "repository" / "sentiment" / "3" / "openvino.onnx").exists()
    assert os.listdir(order.work_dir) == [], "a published version leaves no scratch files"


def test_an_attempt_after_a_published_one_returns_the_same_version(
    checkpoint_uri: str, tmp_path: Path
) -> None:
    order = _order(checkpoint_uri, tmp_path, [FP32])
    first = converter.run(order, Reporter(tmp_path / "spool"))
    order.attempt = 2
    again = Reporter(tmp_path / "again")
    assert converter.run(order, again) == first
    assert [e.WhichOneof("event") for e in _events(tmp_path / "again")] == ["artifact_written"]


def test_golden_examples_travel_unchanged(checkpoint_uri: str, tmp_path: Path) -> None:
    converter.run(_order(checkpoint_uri, tmp_path, [FP32]), Reporter(tmp_path / "spool"))
    served = tmp_path / "repository" / "sentiment" / "3" / "golden.json"
    assert served.read_bytes() == (Path(checkpoint_uri) / "golden.json").read_bytes()


def test_golden_examples_of_other_weights_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    checkpoints.save(folder, checkpoints.bert(["bad", "good"]), ["bad", "good"])
    golden = json_format.Parse((folder / "golden.json").read_text(), models_pb2.GoldenExamples())
    golden.examples[5].outputs["logits"].values[0] += 0.1
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
