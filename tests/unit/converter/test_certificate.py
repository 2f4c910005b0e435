"""A certificate names the files that were proven, and is refused with every figure that fell short."""

from pathlib import Path

import pytest
from google.protobuf import json_format

from conch.v1 import job_pb2, models_pb2
from services.converter import certificate
from services.errors import NotReady


def test_the_certificate_holds_every_verdict_and_the_checkpoint(tmp_path: Path) -> None:
    issued = _issue(tmp_path, _verdict(0.01))
    written = json_format.Parse((tmp_path / "certificate.json").read_text(), models_pb2.Certificate())
    assert written == issued
    assert (written.model, written.version, written.checkpoint_digest) == ("sentiment", 4, "c0ffee")
    assert dict(written.verdicts[0].files) == {"openvino.onnx": "ab12"}


def test_a_failed_verdict_is_refused_by_target_figure_value_and_limit(tmp_path: Path) -> None:
    with pytest.raises(NotReady) as refused:
        _issue(tmp_path, _verdict(0.01), _verdict(0.5))
    assert refused.value.reason == "CERTIFICATE_FAILED"
    assert refused.value.message == (
        "parity failed: openvino bf16 label_flip_rate 0.5 is above its limit 0.02"
    )
    assert not (tmp_path / "certificate.json").exists()


def _issue(folder: Path, *verdicts: job_pb2.Verdict) -> models_pb2.Certificate:
    return certificate.issue(
        folder, model="sentiment", version=4, checkpoint_digest="c0ffee", verdicts=verdicts
    )


def _verdict(flips: float) -> job_pb2.Verdict:
    figure = job_pb2.Figure(name="label_flip_rate", value=flips, limit=0.02, passed=flips <= 0.02)
    return job_pb2.Verdict(
        runtime=job_pb2.RUNTIME_OPENVINO,
        precision=job_pb2.PRECISION_BF16,
        files={"openvino.onnx": "ab12"},
        passed=figure.passed,
        figures=[figure],
    )
