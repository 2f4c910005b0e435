"""One labelled text, as read from a file and as the model reads it; and the facts of a trained model.

Knows no task and no file format.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from conch.v1 import models_pb2, tasks_pb2
from services.tasks.encoding import Tokens
from services.tasks.tensors import Answer, Array, Row, TensorSpec, cut_row


@dataclass(frozen=True)
class Example:
    """One labelled text or pair of texts.

    `target` is what the task makes of the row's label, made of what JSON knows (it is written into the
    checkpoint); None where nothing is known, as in requests. `row` counts from 1 in its file, headers not
    counted. `parameters` go to the model beside the tokens, one number an input.
    """

    text: str
    text_pair: str
    target: Any
    row: int
    parameters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """An example as the model reads it: one window, or several where it is too long for one.

    `target_ids` are the tokens of its target where the model is to write that.
    """

    example: Example
    windows: Sequence[Tokens]
    target_ids: Sequence[int] = ()


@dataclass(frozen=True)
class Facts:
    """What a checkpoint says of its model: labels in the order of the logits, and its task's own choices."""

    labels: Sequence[str] = ()
    spec: tasks_pb2.TaskSpec = field(default_factory=tasks_pb2.TaskSpec)

    @classmethod
    def of(cls, manifest: models_pb2.CheckpointManifest) -> "Facts":
        """Returns the facts that a checkpoint's manifest holds."""
        return cls(tuple(manifest.labels), manifest.task_spec)


def open_copy(spec: tasks_pb2.TaskSpec) -> tasks_pb2.TaskSpec:
    """Returns a copy of a task's own choices, to fill in what they leave open."""
    copied = tasks_pb2.TaskSpec()
    copied.CopyFrom(spec)
    return copied


def grouped(encoded: Sequence[Encoded], rows: Iterable[Row]) -> list[Answer]:
    """Returns the rows of all windows, in order, as one answer an example."""
    left = iter(rows)
    return [[next(left) for _ in one.windows] for one in encoded]


def answers_of(
    encoded: Sequence[Encoded], rows: Iterable[Mapping[str, Array]], outputs: Sequence[TensorSpec]
) -> list[Answer]:
    """Returns the rows of all windows, in order, as one answer an example, padding cut off."""
    windows = (window for one in encoded for window in one.windows)
    cut = (cut_row(row, len(window), outputs) for row, window in zip(rows, windows, strict=True))
    return grouped(encoded, cut)
