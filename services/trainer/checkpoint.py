"""The checkpoint artifact: what a training job leaves for the converter.

    config.json model.safetensors      the model with its task's head
    tokenizer.json ...                 the tokenizer that it was trained with
    golden.json                        up to 32 held-out examples with the model's own outputs
    held_out.jsonl                     the held-out examples, at most 5000
    manifest.json                      written last: task, labels, provenance, digests

Knows the layout; knows nothing about training.
"""

import importlib.metadata
import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from conch.v1 import job_pb2, models_pb2, training_pb2, worker_pb2
from services import storage
from services.errors import NotFound
from services.tasks import Example, Task
from services.trainer.dataset import Splits, digest
from services.trainer.splits import sample

_LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "conch")
_MAX_HELD_OUT = 5000


@dataclass(frozen=True)
class Content:
    """What goes into the artifact, beside the order that asked for it."""

    model: Any
    tokenizer: Path
    golden: models_pb2.GoldenExamples
    splits: Splits
    max_length: int
    evaluation: job_pb2.Evaluation


def find_written(order: worker_pb2.WorkOrder) -> training_pb2.TrainingResult | None:
    """Returns the result of an earlier attempt that was killed after its artifact was complete."""
    try:
        manifest, found = storage.read_manifest(order.output_uri)
    except (NotFound, FileNotFoundError):
        return None
    if manifest.checkpoint.training_job != order.job_id:
        return None
    return _result(order, found, manifest.checkpoint.evaluation)


def write(
    content: Content,
    order: worker_pb2.WorkOrder,
    spec: training_pb2.TrainingSpec,
    task: Task,
    *,
    scratch: Path,
) -> training_pb2.TrainingResult:
    """Completes the artifact in the folder `scratch` and uploads it to the order's output URI.

    Raises NotReady(DISK_FULL), BackendUnavailable.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    content.model.save_pretrained(str(scratch))
    shutil.copytree(content.tokenizer, scratch, dirs_exist_ok=True)
    (scratch / "golden.json").write_text(json_format.MessageToJson(content.golden), encoding="utf-8")
    held_out = sample(content.splits.validation, task, size=_MAX_HELD_OUT, seed=0, field="validation")
    _write_held_out(scratch / "held_out.jsonl", held_out)
    manifest = models_pb2.Manifest(checkpoint=_manifest(content, order, spec))
    uploaded = storage.upload(scratch, order.output_uri, manifest)
    shutil.rmtree(scratch)
    return _result(order, uploaded, content.evaluation)


def _result(
    order: worker_pb2.WorkOrder, found: str, evaluation: job_pb2.Evaluation
) -> training_pb2.TrainingResult:
    return training_pb2.TrainingResult(
        checkpoint_uri=order.output_uri, checkpoint_digest=found, evaluation=evaluation
    )


def _write_held_out(path: Path, examples: Sequence[Example]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for e in examples:
            row = {"text": e.text, "text_pair": e.text_pair, "target": e.target}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _manifest(
    content: Content, order: worker_pb2.WorkOrder, spec: training_pb2.TrainingSpec
) -> models_pb2.CheckpointManifest:
    return models_pb2.CheckpointManifest(
        task=spec.task,
        labels=content.splits.facts.labels,
        task_spec=content.splits.facts.spec,
        max_length=content.max_length,
        training_job=order.job_id,
        base_model=spec.base_model,
        train_digest=digest(content.splits.train),
        validation_digest=digest(content.splits.validation),
        num_train_examples=len(content.splits.train),
        seed=spec.hyperparameters.seed,
        evaluation=content.evaluation,
        libraries=_libraries(),
    )


def _libraries() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    return versions | {name: importlib.metadata.version(name) for name in _LIBRARIES}
