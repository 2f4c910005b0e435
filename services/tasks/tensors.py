"""Tensors as numpy sees them: what a model takes and gives, and one row of what it gave.

Knows names, dtypes and axes; knows nothing about tasks or runtimes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

WRITTEN = "target"
"""The axis of the tokens that a model writes."""

IGNORED = -100
"""What losses skip; rows of targets that differ in length are padded with it."""

Row = Mapping[str, FloatArray]
"""The outputs of one window by tensor name: no batch axis, a sequence axis ends with the window's tokens."""
Answer = Sequence[Row]
"""A model's outputs on one example: one row a window."""


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
    def is_written(self) -> bool:
        """Whether an axis is as long as what the model writes, which batches pad."""
        return WRITTEN in self.axes

    @property
    def dims(self) -> list[int]:
        """The extent of each axis but the batch, -1 where dynamic, as config.pbtxt wants them."""
        return [axis if isinstance(axis, int) else -1 for axis in self.axes[1:]]


def row_of(outputs: Mapping[str, Array], index: int, length: int, specs: Sequence[TensorSpec]) -> Row:
    """Returns row `index` of a batch's outputs without what padding beyond `length` tokens gave."""
    return cut_row({spec.name: outputs[spec.name][index] for spec in specs}, length, specs)


def cut_row(row: Mapping[str, Array], length: int, specs: Sequence[TensorSpec]) -> Row:
    """Returns the row of a window of `length` tokens without what its padding gave."""
    sequential = {spec.name for spec in specs if spec.axes[1:2] == ("sequence",)}
    return {name: array[:length] if name in sequential else array for name, array in row.items()}


def stacked(answers: Sequence[Answer], name: str) -> FloatArray:
    """Returns one output of examples of one window each, `(example, ...)`."""
    return np.stack([answer[0][name] for answer in answers])
