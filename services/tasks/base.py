"""What a task is: the one place where trainer, converter and gateway read the facts of a task from.

Knows tensors as numpy sees them, examples and labels; knows nothing about torch, Triton or gRPC calls.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from conch.v1 import job_pb2, training_pb2
from services.errors import Violation

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Outputs = Mapping[str, FloatArray]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model: from it derive ONNX axes, config.pbtxt dims and Triton inputs.

    `axes` names every axis: "batch" first, then symbolic names ("sequence", "label"), all of which
    are dynamic in ONNX and in config.pbtxt, or an int for a fixed extent.
    """

    name: str
    dtype: str
    axes: tuple[str | int, ...]

    @property
    def dynamic_axes(self) -> dict[int, str]:
        """The position and name of each symbolic axis, as torch.onnx wants them."""
        return {i: axis for i, axis in enumerate(self.axes) if isinstance(axis, str)}

    @property
    def dims(self) -> list[int]:
        """The extent of each axis but the batch, -1 where dynamic, as config.pbtxt wants them."""
        return [axis if isinstance(axis, int) else -1 for axis in self.axes[1:]]


@dataclass(frozen=True)
class Column:
    """A role that a column of a data file plays, and the names it usually bears, best first."""

    role: str
    guesses: tuple[str, ...]
    required: bool = True


@dataclass(frozen=True)
class Example:
    """One labelled text: `row` counts from 1 in its file, headers not counted."""

    text: str
    text_pair: str
    target: Any
    row: int


class Task(ABC):
    """One NLP task. Everything that trainer, converter and gateway must agree on stands in its subclass."""

    id: ClassVar[str]
    """Hugging Face task id."""
    auto_model: ClassVar[str]
    """Name of the transformers class that loads a checkpoint with this task's head."""
    inputs: ClassVar[tuple[TensorSpec, ...]]
    """Inputs in the order of the exported graph; a model that takes fewer is exported with fewer."""
    outputs: ClassVar[tuple[TensorSpec, ...]]
    """Outputs in the order of the exported graph."""
    columns: ClassVar[tuple[Column, ...]]
    """Roles that the trainer looks for in a data file."""
    best_metric: ClassVar[str]
    """Metric by which the best checkpoint is chosen; greater is better."""
    rates: ClassVar[frozenset[str]]
    """Parity figures that are shares of examples: few examples resolve them only coarsely."""

    @abstractmethod
    def read_target(self, values: Mapping[str, Any]) -> Any:
        """Returns the target of a row, given its values by role (None where missing).

        Raises ValueError whose message completes "row 7: ...".
        """

    @abstractmethod
    def choose_labels(self, train: Sequence[Example], spec: training_pb2.TrainingSpec) -> list[str]:
        """Returns the model's labels in the order of its logits."""

    @abstractmethod
    def find_problems(
        self, train: Sequence[Example], validation: Sequence[Example], labels: Sequence[str]
    ) -> list[Violation]:
        """Returns what makes these splits untrainable for this task, with row numbers; empty if nothing."""

    @abstractmethod
    def targets(self, examples: Sequence[Example], labels: Sequence[str]) -> IntArray:
        """Returns what the loss compares the outputs with, one row an example."""

    @abstractmethod
    def strata(self, examples: Sequence[Example]) -> list[str]:
        """Returns the stratum of each example, by which splits and samples stay balanced."""

    @abstractmethod
    def predict(self, outputs: Outputs) -> IntArray:
        """Returns the targets that these outputs amount to, one row an example."""

    @abstractmethod
    def evaluate(self, outputs: Outputs, targets: IntArray, labels: Sequence[str]) -> job_pb2.Evaluation:
        """Returns this task's metrics of fp32 outputs against targets; caller sets split and step."""

    @abstractmethod
    def compare(self, reference: Outputs, candidate: Outputs, targets: IntArray) -> dict[str, float]:
        """Returns the parity figures of a converted model; smaller is better, 0 is perfect.

        NaN or infinity in `candidate` shows in the figure "num_nonfinite" and never hides elsewhere.
        """

    @abstractmethod
    def limits(self, precision: job_pb2.Precision.ValueType) -> dict[str, float]:
        """Returns the largest value of each parity figure that certifies `precision`."""
