"""Small published versions: real tokenizer, real certificate, real publishing.

By default the graph is any bytes and the golden answers are those of `fake_triton.sum_logits`, so that a
fake Triton proves them; tests with a real Triton bring graphs, configurations and logits of their own.
"""

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from conch.v1 import job_pb2, models_pb2
from examples.assets import minilm
from services import storage
from services.repository import publishing
from services.tasks import find_task
from services.tasks.encoding import Encoder, pad
from tests.contract.fake_triton import Logits, sum_logits

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
# File of a version -> who reads it, and in which precision.
_READERS = {
    "model.onnx": (job_pb2.RUNTIME_ONNXRUNTIME, job_pb2.PRECISION_FP32),
    "openvino.onnx": (job_pb2.RUNTIME_OPENVINO, job_pb2.PRECISION_BF16),
}
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
    files: Mapping[str, bytes] | None = None,
    configs: Mapping[str, str] | None = None,
    logits: Logits = sum_logits,
    plans: Sequence[models_pb2.Plan] = (),
) -> Path:
    """Publishes a version and returns its folder.

    `files` are graphs by name ("model.onnx", "openvino.onnx"), each certified. `plans` are certified, too;
    what lies in them is no plan.
    `shift` is added to its golden logits (a version that then answers wrong), `certificate` may change
    its certificate, `certified=False` leaves it out.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, data in (files or {"model.onnx": f"graph of {model} {version}".encode()}).items():
            (folder / path).write_bytes(data)
        for plan in plans:
            (folder / plan.path).write_bytes(f"plan of {model} {version}".encode())
        (folder / "tokenizer.json").write_bytes((minilm() / "tokenizer.json").read_bytes())
        (folder / "golden.json").write_text(json_format.MessageToJson(golden(shift=shift, logits=logits)))
        if certified:
            made = _certificate(folder, model, version, plans)
            if certificate:
                certificate(made)
            (folder / "certificate.json").write_text(json_format.MessageToJson(made))
        configs = configs or {"config.pbtxt": _CONFIG % model}
        _publish(folder, repository, model, version, task, configs, plans)
    return repository / model / str(version)


def golden(
    *, texts: Sequence[str] = TEXTS, shift: float = 0.0, logits: Logits = sum_logits
) -> models_pb2.GoldenExamples:
    """Returns golden examples with `logits` of each text's ids and mask, `shift` added."""
    encoder = _encoder()
    examples = []
    for text, tokens in zip(texts, encoder.encode(texts), strict=True):
        inputs = pad([tokens], len(tokens), encoder.pad_id)
        row = logits(inputs["input_ids"], inputs["attention_mask"])[0] + shift
        tensor = models_pb2.FloatTensor(shape=[len(LABELS)], values=row.tolist())
        examples.append(
            models_pb2.GoldenExample(text=text, windows=[models_pb2.GoldenWindow(outputs={"logits": tensor})])
        )
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


def _certificate(
    folder: Path, model: str, version: int, plans: Sequence[models_pb2.Plan]
) -> models_pb2.Certificate:
    readers = _READERS | {plan.path: (job_pb2.RUNTIME_TENSORRT, plan.precision) for plan in plans}
    verdicts = [
        job_pb2.Verdict(
            runtime=runtime,
            precision=precision,
            files={file: storage.sha256_of(folder / file)},
            passed=True,
            figures=_figures(precision),
            num_examples=500,
        )
        for file, (runtime, precision) in readers.items()
        if (folder / file).exists()
    ]
    return models_pb2.Certificate(
        model=model, version=version, checkpoint_digest=f"digest-{version}", verdicts=verdicts
    )


def _figures(precision: job_pb2.Precision.ValueType) -> list[job_pb2.Figure]:
    limits = find_task("text-classification").limits(precision)
    return [job_pb2.Figure(name=name, value=0.0, limit=limit, passed=True) for name, limit in limits.items()]


@functools.cache
def _encoder() -> Encoder:
    return Encoder.from_file(minilm() / "tokenizer.json", MAX_LENGTH)


def _publish(
    folder: Path,
    repository: Path,
    model: str,
    version: int,
    task: str,
    configs: Mapping[str, str],
    plans: Sequence[models_pb2.Plan],
) -> None:
    checkpoint = models_pb2.CheckpointManifest(task=task, labels=LABELS, max_length=MAX_LENGTH)
    manifest = models_pb2.VersionManifest(
        model=model,
        version=version,
        conversion_job=f"convert-{model}-{version}",
        checkpoint_digest=f"digest-{version}",
        checkpoint=checkpoint,
        plans=plans,
    )
    publishing.publish(
        folder,
        repository_uri=str(repository),
        model=model,
        version=version,
        configs=configs,
        manifest=manifest,
    )
