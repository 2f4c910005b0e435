"""Small published versions: real tokenizer, real certificate, real publishing; the graph is any bytes.

Their golden answers are those of `fake_triton.sum_logits`, so that a fake Triton proves them.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from conch.v1 import job_pb2, models_pb2
from examples.assets import minilm
from services import storage
from services.repository import publishing
from services.tasks.encoding import Encoder, pad
from tests.contract.fake_triton import sum_logits

LABELS = ("bad", "fair", "good")
MAX_LENGTH = 32
TEXTS = ("a fine film", "dull", "two hours of my life that nobody gives back", "see it twice")

_CONFIG = """
name: "%s"  backend: "onnxruntime"  max_batch_size: 64  version_policy { all { } }
input { name: "input_ids" data_type: TYPE_INT64 dims: -1 }
input { name: "attention_mask" data_type: TYPE_INT64 dims: -1 }
input { name: "token_type_ids" data_type: TYPE_INT64 dims: -1 }
output { name: "logits" data_type: TYPE_FP32 dims: -1 }
"""
_LIMITS = {"max_abs_logit_difference": 1e-3, "label_flip_rate": 0.002, "num_nonfinite": 0.0}

Change = Callable[[models_pb2.Certificate], Any]


def publish(
    repository: Path,
    version: int = 1,
    *,
    model: str = "sentiment",
    shift: float = 0.0,
    certificate: Change | None = None,
    certified: bool = True,
    task: str = "text-classification",
) -> Path:
    """Publishes a version and returns its folder.

    `shift` is added to its golden logits (a version that then answers wrong), `certificate` may change
    its certificate, `certified=False` leaves it out.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(f"graph of {model} {version}".encode())
        (folder / "tokenizer.json").write_bytes((minilm() / "tokenizer.json").read_bytes())
        (folder / "golden.json").write_text(json_format.MessageToJson(golden(shift=shift)))
        if certified:
            made = _certificate(folder, model, version)
            if certificate:
                certificate(made)
            (folder / "certificate.json").write_text(json_format.MessageToJson(made))
        _publish(folder, repository, model, version, task)
    return repository / model / str(version)


def golden(*, texts: Sequence[str] = TEXTS, shift: float = 0.0) -> models_pb2.GoldenExamples:
    """Returns golden examples with the fake Triton's own logits, `shift` added."""
    encoder = Encoder.from_file(minilm() / "tokenizer.json", MAX_LENGTH)
    examples = []
    for text, tokens in zip(texts, encoder.encode(texts), strict=True):
        inputs = pad([tokens], len(tokens), encoder.pad_id)
        logits = sum_logits(inputs["input_ids"], inputs["attention_mask"], len(LABELS))[0] + shift
        tensor = models_pb2.FloatTensor(shape=[len(LABELS)], values=logits.tolist())
        examples.append(models_pb2.GoldenExample(text=text, outputs={"logits": tensor}))
    return models_pb2.GoldenExamples(examples=examples)


def damage(path: Path) -> None:
    """Flips one byte in the middle of a published file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def route(model: str = "sentiment", **weights: int) -> models_pb2.Route:
    """Returns a route; versions are written v1=90."""
    versions = [models_pb2.WeightedVersion(version=int(v[1:]), weight=w) for v, w in weights.items()]
    return models_pb2.Route(model=model, versions=versions)


def _certificate(folder: Path, model: str, version: int) -> models_pb2.Certificate:
    figures = [
        job_pb2.Figure(name=name, value=0.0, limit=limit, passed=True) for name, limit in _LIMITS.items()
    ]
    verdict = job_pb2.Verdict(
        runtime=job_pb2.RUNTIME_ONNXRUNTIME,
        precision=job_pb2.PRECISION_FP32,
        file="model.onnx",
        sha256=storage.sha256_of(folder / "model.onnx"),
        passed=True,
        figures=figures,
        num_examples=500,
    )
    return models_pb2.Certificate(
        model=model, version=version, checkpoint_digest=f"digest-{version}", verdicts=[verdict]
    )


def _publish(folder: Path, repository: Path, model: str, version: int, task: str) -> None:
    checkpoint = models_pb2.CheckpointManifest(task=task, labels=LABELS, max_length=MAX_LENGTH)
    manifest = models_pb2.VersionManifest(
        model=model,
        version=version,
        conversion_job=f"convert-{model}-{version}",
        checkpoint_digest=f"digest-{version}",
        checkpoint=checkpoint,
    )
    publishing.publish(
        folder,
        repository_uri=str(repository),
        model=model,
        version=version,
        configs={"config.pbtxt": _CONFIG % model},
        manifest=manifest,
    )
