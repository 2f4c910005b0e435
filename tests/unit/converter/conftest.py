"""Tiny checkpoints and their portable graphs, made once a session."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from services.converter import checkpoint, onnx_export, optimize
from services.converter.checkpoint import Checkpoint
from services.tasks import TensorSpec
from tests.unit.converter import checkpoints


@dataclass(frozen=True)
class Exported:
    """A loaded checkpoint and its graph, as exported and as optimized."""

    source: Checkpoint
    inputs: tuple[TensorSpec, ...]
    raw: Path
    portable: Path


@pytest.fixture(scope="session")
def two_labels(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _exported(tmp_path_factory.mktemp("two"), ["negative", "positive"])


@pytest.fixture(scope="session")
def five_labels(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _exported(tmp_path_factory.mktemp("five"), ["1", "2", "3", "4", "5"])


def _exported(folder: Path, labels: list[str]) -> Exported:
    torch.manual_seed(3)
    uri = checkpoints.save(folder / "artifact", checkpoints.bert(labels), labels)
    source = checkpoint.load(uri, folder / "checkpoint")
    inputs = onnx_export.model_inputs(source.model, source.task)
    raw, portable = folder / "raw.onnx", folder / "portable.onnx"
    onnx_export.export(source.model, source.task, max_length=48, path=raw)
    optimize.optimize(raw, portable)
    return Exported(source, inputs, raw, portable)
