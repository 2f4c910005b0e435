"""Versions made by hand, with what no converter builds yet: plans for GPUs. A plan is opaque bytes."""

import hashlib
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from google.protobuf import json_format

from conch.v1 import job_pb2, models_pb2
from services.repository import publishing

FIELDS = """
input [{ name: "input_ids" data_type: TYPE_INT64 dims: [%(batch)s -1] }]
output [{ name: "logits" data_type: TYPE_FP32 dims: [%(batch)s -1] }]
"""
BATCHED = "max_batch_size: 8" + FIELDS % {"batch": ""}
CONFIGS = {
    "config.pbtxt": 'backend: "onnxruntime" instance_group [{ kind: KIND_CPU }] ' + BATCHED,
    "configs/openvino.pbtxt": 'backend: "openvino" max_batch_size: 0' + FIELDS % {"batch": "-1,"},
    "configs/tensorrt.pbtxt": 'backend: "tensorrt" default_model_filename: "model.plan" ' + BATCHED,
}
RUNTIMES = {"onnxruntime": 1, "openvino": 2, "tensorrt": 3}
H100, T4 = ("9.0", "10.14.1.48"), ("7.5", "10.14.1.48")


def publish(
    repository: str,
    version: int = 1,
    *,
    model: str = "sentiment",
    plans: Collection[tuple[str, str]] = (),
    certified: Collection[str] = ("onnxruntime", "openvino", "tensorrt"),
    failed: Collection[str] = (),
    configs: Mapping[str, str] = CONFIGS,
    task: str = "text-classification",
) -> str:
    """Publishes a version with a plan for each capability and TensorRT of `plans`; returns its digest."""
    described = [_plan(capability, tensorrt) for capability, tensorrt in plans]
    graph = "decoder.onnx" if task == "text2text-generation" else "model.onnx"
    files = {graph: b"onnxruntime", "openvino.onnx": b"openvino"}
    files |= {plan.path: f"plan {plan.path} of {version}".encode() for plan in described}
    files |= {"tokenizer.json": b"{}", "golden.json": b"{}"}
    proof = _certificate(model, version, files, certified, failed)
    if proof.verdicts:
        files["certificate.json"] = json_format.MessageToJson(proof).encode()
    manifest = models_pb2.VersionManifest(
        model=model,
        version=version,
        conversion_job=f"job-{version}",
        checkpoint_digest="c0ffee",
        checkpoint=models_pb2.CheckpointManifest(task=task),
        plans=described,
    )
    with tempfile.TemporaryDirectory() as made:
        for name, data in files.items():
            (Path(made) / name).parent.mkdir(exist_ok=True)
            (Path(made) / name).write_bytes(data)
        return publishing.publish(
            Path(made),
            repository_uri=repository,
            model=model,
            version=version,
            configs=configs,
            manifest=manifest,
        )


def routes(*names: str, pool: str = "gpu", shadow: int = 0) -> models_pb2.Routes:
    """Returns routes of one pool that name "model@version", the first of each model with all the weight."""
    made: dict[str, models_pb2.Route] = {}
    for name in names:
        model, _, version = name.partition("@")
        route = made.setdefault(model, models_pb2.Route(model=model, pool=pool, shadow=shadow))
        route.versions.add(version=int(version), weight=0 if route.versions else 100)
    return models_pb2.Routes(routes=made.values())


def _plan(capability: str, tensorrt: str) -> models_pb2.Plan:
    path = f"plans/sm{capability.replace('.', '')}-{tensorrt}.plan"
    return models_pb2.Plan(
        path=path,
        compute_capability=capability,
        tensorrt_version=tensorrt,
        precision=job_pb2.PRECISION_BF16,
    )


def _certificate(
    model: str, version: int, files: Mapping[str, bytes], certified: Collection[str], failed: Collection[str]
) -> models_pb2.Certificate:
    served = {
        "onnxruntime": [name for name in files if name in ("model.onnx", "decoder.onnx")],
        "openvino": ["openvino.onnx"],
    }
    served["tensorrt"] = [name for name in files if name.endswith(".plan")]
    verdicts = [
        job_pb2.Verdict(
            runtime=job_pb2.Runtime.ValueType(RUNTIMES[runtime]),
            files={name: hashlib.sha256(files[name]).hexdigest()},
            passed=runtime not in failed,
            figures=[_figure(0.5 if runtime in failed else 0.001)],
        )
        for runtime in certified
        for name in served[runtime]
    ]
    return models_pb2.Certificate(model=model, version=version, checkpoint_digest="c0ffee", verdicts=verdicts)


def _figure(value: float) -> job_pb2.Figure:
    return job_pb2.Figure(name="max_abs_logit_difference", value=value, limit=0.01, passed=value <= 0.01)
