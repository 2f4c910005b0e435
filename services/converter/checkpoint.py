"""A checkpoint artifact, downloaded, checked and loaded: what the conversion starts from.

Knows the layout that the trainer writes and transformers' loader; knows nothing about ONNX.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from google.protobuf import json_format
from safetensors import SafetensorError

from conch.v1 import models_pb2
from services import storage
from services.errors import InvalidRequest, NotReady
from services.models import model_class
from services.tasks import Encoded, Example, Facts, Task, find_task
from services.tasks.encoding import Encoder

_REQUIRED = ("config.json", "tokenizer.json", "golden.json", "held_out.jsonl")


@dataclass(frozen=True)
class Checkpoint:
    """A fine-tuned model with everything that says how it must answer."""

    folder: Path
    digest: str
    manifest: models_pb2.CheckpointManifest
    task: Task
    model: transformers.PreTrainedModel
    encoder: Encoder
    golden: models_pb2.GoldenExamples
    held_out: list[Example]

    @property
    def facts(self) -> Facts:
        """What its manifest says of the model."""
        return Facts.of(self.manifest)

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Returns examples as the model reads them."""
        return self.task.encode(self.encoder, examples, self.facts)

    def sample(self, num_examples: int) -> list[Example]:
        """Returns up to `num_examples` held-out examples, drawn with the run's seed."""
        if num_examples >= len(self.held_out):
            return list(self.held_out)
        return random.Random(self.manifest.seed).sample(self.held_out, num_examples)


def read_task(uri: str) -> Task:
    """Returns the task of the checkpoint at `uri`, read from its manifest alone. Raises as `load` does."""
    manifest, _ = storage.read_manifest(uri)
    return _task_of(manifest, uri)


def load(uri: str, folder: Path) -> Checkpoint:
    """Brings the checkpoint at `uri` into `folder` and loads it in fp32, ready to answer.

    Raises NotFound (no complete artifact), InvalidRequest (it is none of ours, or of an unknown task)
    or NotReady (damaged, incomplete, or at odds with itself): the message says what is wrong.
    """
    manifest, digest = storage.download(uri, folder)
    task, checkpoint = _task_of(manifest, uri), manifest.checkpoint
    _require_files(folder, uri)
    facts = Facts.of(checkpoint)
    return Checkpoint(
        folder=folder,
        digest=digest,
        manifest=checkpoint,
        task=task,
        model=_load_model(folder, task, facts, checkpoint.max_length),
        encoder=_load_encoder(folder, checkpoint.max_length),
        golden=_load_golden(folder),
        held_out=_load_held_out(folder, task, facts),
    )


def _task_of(manifest: models_pb2.Manifest, uri: str) -> Task:
    if manifest.WhichOneof("content") != "checkpoint":
        raise InvalidRequest.field("checkpoint_uri", f"{uri} is no checkpoint", reason="NOT_A_CHECKPOINT")
    return find_task(manifest.checkpoint.task, field="checkpoint_uri")


def _require_files(folder: Path, uri: str) -> None:
    missing = [name for name in _REQUIRED if not (folder / name).is_file()]
    if not list(folder.glob("model*.safetensors")):
        missing.append("model.safetensors")
    if missing:
        raise NotReady(f"the checkpoint {uri} lacks {', '.join(missing)}", reason="CHECKPOINT_INCOMPLETE")


def _load_model(folder: Path, task: Task, facts: Facts, max_length: int) -> transformers.PreTrainedModel:
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model, loading = model_class(task.auto_model).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise NotReady(
            f"transformers cannot load the checkpoint as {task.auto_model}: {error}",
            reason="CHECKPOINT_UNREADABLE",
        ) from error
    # transformers fills missing weights with random numbers and only warns.
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"]))
        raise NotReady(f"the checkpoint's weights lack {missing}", reason="CHECKPOINT_INCOMPLETE")
    _require_config(model.config, task.config(facts))
    _require_positions(model.config, max_length)
    return model.eval()  # type: ignore[no-any-return]  # from_pretrained is untyped


def _require_config(config: transformers.PretrainedConfig, wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        found = getattr(config, name, None)
        if found is not None and found != value:
            raise NotReady(
                f"config.json says {name} is {found}, the manifest makes it {value}", reason="LABELS_MISMATCH"
            )


def _require_positions(config: transformers.PretrainedConfig, max_length: int) -> None:
    positions = getattr(config, "max_position_embeddings", 0)
    if 0 < positions < max_length:
        raise NotReady(
            f"the model knows {positions} positions, its manifest lets {max_length} tokens in",
            reason="LENGTH_MISMATCH",
        )


def _load_encoder(folder: Path, max_length: int) -> Encoder:
    try:
        return Encoder.from_file(folder / "tokenizer.json", max_length)
    except Exception as error:  # tokenizers raises plain Exception
        raise NotReady(f"tokenizer.json is unusable: {error}", reason="CHECKPOINT_UNREADABLE") from error


def _load_golden(folder: Path) -> models_pb2.GoldenExamples:
    try:
        text = (folder / "golden.json").read_text(encoding="utf-8")
        golden = json_format.Parse(text, models_pb2.GoldenExamples())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise NotReady(f"golden.json is unreadable: {error}", reason="CHECKPOINT_UNREADABLE") from error
    if not golden.examples:
        raise NotReady("golden.json holds no example", reason="CHECKPOINT_INCOMPLETE")
    return golden


def _load_held_out(folder: Path, task: Task, facts: Facts) -> list[Example]:
    lines = (folder / "held_out.jsonl").read_text(encoding="utf-8").split("\n")
    examples = [_example(line, row) for row, line in enumerate(lines, start=1) if line.strip()]
    if not examples:
        raise NotReady("held_out.jsonl holds no example to prove parity on", reason="NO_HELD_OUT_EXAMPLES")
    strangers = sorted({stray for e in examples if (stray := task.find_stray(e, facts))})
    if strangers:
        raise NotReady(
            f"held_out.jsonl has labels that the model does not know: {', '.join(strangers)}",
            reason="LABELS_MISMATCH",
        )
    return examples


def _example(line: str, row: int) -> Example:
    try:
        fields = json.loads(line)
        return Example(fields["text"], fields.get("text_pair") or "", fields["target"], row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotReady(f"held_out.jsonl, row {row}: {error!r}", reason="CHECKPOINT_UNREADABLE") from error
