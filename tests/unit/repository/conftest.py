"""A repository in a temporary folder, and what a converter would publish into it."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from google.protobuf import json_format

from conch.v1 import job_pb2, models_pb2
from services.repository import publishing

FIELDS = """
input [{ name: "input_ids" data_type: TYPE_INT64 dims: [%(batch)s -1] }]
output [{ name: "logits" data_type: %(dtype)s dims: [%(batch)s %(labels)s] }]
"""


def configs(dtype: str = "TYPE_FP32", labels: int = -1) -> dict[str, str]:
    """Returns both configurations of a model with one input and one output."""
    facts = {"dtype": dtype, "labels": labels}
    return {
        "config.pbtxt": 'backend: "onnxruntime" max_batch_size: 8' + FIELDS % (facts | {"batch": ""}),
        "configs/openvino.pbtxt": 'backend: "openvino" max_batch_size: 0'
        + FIELDS % (facts | {"batch": "-1,"}),
    }


def certificate(
    model: str, version: int, files: Mapping[str, bytes], *, value: float = 0.001
) -> models_pb2.Certificate:
    """Returns a certificate for both runtimes over `files`, which passes if `value` is at most 0.01."""
    served = {job_pb2.RUNTIME_ONNXRUNTIME: "model.onnx", job_pb2.RUNTIME_OPENVINO: "openvino.onnx"}
    figure = job_pb2.Figure(name="max_abs_logit_difference", value=value, limit=0.01, passed=value <= 0.01)
    verdicts = [
        job_pb2.Verdict(
            runtime=runtime,
            files={name: hashlib.sha256(files[name]).hexdigest()},
            passed=figure.passed,
            figures=[figure],
        )
        for runtime, name in served.items()
    ]
    return models_pb2.Certificate(model=model, version=version, checkpoint_digest="c0ffee", verdicts=verdicts)


@pytest.fixture
def repository(tmp_path: Path) -> str:
    return str(tmp_path / "repository")


@pytest.fixture
def publish(tmp_path: Path, repository: str) -> Callable[..., str]:
    """Publishes version `version` of `model` whose graph is `graph`; returns its digest."""

    def run(
        version: int,
        *,
        model: str = "sentiment",
        graph: bytes = b"graph",
        value: float = 0.001,
        proof: models_pb2.Certificate | None = None,
        job: str = "",
        texts: Mapping[str, str] | None = None,
        uri: str = repository,
    ) -> str:
        files = {"model.onnx": graph, "openvino.onnx": graph, "tokenizer.json": b"{}"}
        proof = proof or certificate(model, version, files, value=value)
        if proof.model:
            files["certificate.json"] = json_format.MessageToJson(proof).encode()
        folder = tmp_path / "work" / f"{model}-{version}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        manifest = models_pb2.VersionManifest(
            model=model,
            version=version,
            conversion_job=job or f"job-{version}",
            checkpoint_digest="c0ffee",
            checkpoint=models_pb2.CheckpointManifest(task="text-classification"),
        )
        return publishing.publish(
            folder,
            repository_uri=uri,
            model=model,
            version=version,
            configs=texts or configs(),
            manifest=manifest,
        )

    return run
