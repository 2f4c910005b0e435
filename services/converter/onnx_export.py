"""A transformers model to one portable ONNX graph whose inputs and outputs are the task's TensorSpecs.

Knows torch's exporter and what Triton's stock backends demand of a graph; knows nothing about
checkpoints, precision or parity.
"""

import contextlib
import inspect
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import transformers
from onnx import helper, numpy_helper

from services.errors import NotReady
from services.tasks import Task, TensorSpec

OPSET = 20
"""The first with Gelu and the last that ONNX IR 9 carries."""
IR_VERSION = 9
"""onnxruntime reads IR 9 since 1.16, IR 10 since 1.18; the exporter writes 10 and uses nothing of it."""
MAX_GRAPH_BYTES = (2 << 30) - (1 << 20)
"""protobuf ends at 2 GiB; beyond it weights would need files of their own."""

_TORCH_DTYPES = {"int64": torch.int64, "int32": torch.int32, "float32": torch.float32}
_ONNX_DTYPES = {
    "int64": onnx.TensorProto.INT64,
    "int32": onnx.TensorProto.INT32,
    "float32": onnx.TensorProto.FLOAT,
}
_EXAMPLE_BATCH, _EXAMPLE_SEQUENCE = 2, 16


def model_inputs(model: transformers.PreTrainedModel, task: Task) -> tuple[TensorSpec, ...]:
    """Returns the task's inputs that `model` reads, in the task's order.

    DistilBERT has no token_type_ids; RoBERTa and DeBERTa take them but know one type only, so they
    carry nothing.
    """
    accepted = inspect.signature(model.forward).parameters
    one_type = getattr(model.config, "type_vocab_size", 2) < 2
    return tuple(
        spec
        for spec in task.inputs
        if spec.name in accepted and not (spec.name == "token_type_ids" and one_type)
    )


def export(model: transformers.PreTrainedModel, task: Task, *, max_length: int, path: Path) -> None:
    """Writes `model` to `path` as one ONNX file with every named axis symbolic.

    Raises NotReady(EXPORT_FAILED) if torch cannot trace the model, NotReady(GRAPH_TOO_LARGE) past 2 GiB.
    """
    inputs, outputs = model_inputs(model, task), task.outputs
    check_size(model)
    graph = _trace(model, inputs, outputs, max_length)
    for spec in outputs:
        _free_last_axis(graph.graph, spec, inputs)
    _strip(graph)
    graph.ir_version = min(graph.ir_version, IR_VERSION)
    _check(graph, inputs, outputs)
    onnx.save_model(graph, path)


def check_size(model: transformers.PreTrainedModel) -> None:
    """Raises NotReady(GRAPH_TOO_LARGE) if the weights do not fit one ONNX file."""
    num_bytes = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if num_bytes > MAX_GRAPH_BYTES:
        raise NotReady(
            f"the model's weights take {num_bytes} bytes; ONNX without files beside it ends at 2 GiB",
            reason="GRAPH_TOO_LARGE",
        )


class _Positional(torch.nn.Module):
    """Takes a model's inputs and gives its outputs by position, in the order of the specs."""

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        super().__init__()
        self.model = model
        self.inputs = [spec.name for spec in inputs]
        self.outputs = [spec.name for spec in outputs]

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        answer = self.model(**dict(zip(self.inputs, tensors, strict=True)), return_dict=True)
        return tuple(answer[name] for name in self.outputs)


def _trace(
    model: transformers.PreTrainedModel,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    max_length: int,
) -> onnx.ModelProto:
    extents = {
        "batch": torch.export.Dim("batch", min=1, max=1024),
        "sequence": torch.export.Dim("sequence", min=2, max=max_length),
    }
    shapes = tuple({i: extents[axis] for i, axis in spec.dynamic_axes.items()} for spec in inputs)
    with _eager_attention(model), quiet():
        try:
            program = torch.onnx.export(
                _Positional(model, inputs, outputs),
                _example(inputs, max_length),
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in inputs],
                output_names=[spec.name for spec in outputs],
                dynamic_shapes={"tensors": shapes},
                # Optimizing is a stage of its own, so that before and after can be compared.
                optimize=False,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
            raise export_failed(model, error) from error
    assert program is not None, "torch.onnx.export(dynamo=True) always returns a program"
    proto: onnx.ModelProto = program.model_proto
    return proto


def _example(inputs: Sequence[TensorSpec], max_length: int) -> tuple[torch.Tensor, ...]:
    """Returns ones `(2, sequence)` whose second row ends in padding, which keeps the mask in the graph."""
    length = min(_EXAMPLE_SEQUENCE, max_length)
    made = {}
    for spec in inputs:
        fill = torch.zeros if spec.name == "token_type_ids" else torch.ones
        made[spec.name] = fill(_EXAMPLE_BATCH, length, dtype=_TORCH_DTYPES[spec.dtype])
    if "attention_mask" in made:
        made["attention_mask"][1, length // 2 :] = 0
    return tuple(made.values())


def export_failed(model: object, error: Exception) -> NotReady:
    """Returns what to raise when torch cannot trace `model`."""
    cause = str(error.__cause__ or error).strip().splitlines()[0]
    return NotReady(f"torch cannot export {type(model).__name__} to ONNX: {cause}", reason="EXPORT_FAILED")


@contextlib.contextmanager
def _eager_attention(model: transformers.PreTrainedModel) -> Iterator[None]:
    # transformers' sdpa exports with a NaN guard around each softmax: a third more nodes, same answers
    # and speed (MiniLM: 289 nodes against 217).
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporter's prints off stdout and its known, harmless warnings out of the log."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _free_last_axis(graph: onnx.GraphProto, spec: TensorSpec, inputs: Sequence[TensorSpec]) -> None:
    """Makes an output's last axis unknown to whoever reads the graph, where no input has that axis.

    Naming the axis in value_info is not enough: onnxruntime and OpenVINO infer its extent from the
    weights, and Triton's stock backends refuse a graph whose inferred shape is not exactly the -1 of
    config.pbtxt. A Reshape to (known axes..., -1) is free, exact, and cannot be inferred through.
    """
    free = spec.axes[-1]
    if not isinstance(free, str) or any(free in source.axes for source in inputs):
        return
    inner = f"{spec.name}_fixed"
    _rename_output(graph, spec.name, inner)
    parts = [_append_extent(graph, axis, inputs, f"{spec.name}_{axis}") for axis in spec.axes[:-1]]
    graph.initializer.append(numpy_helper.from_array(np.array([-1], dtype=np.int64), f"{inner}_rest"))
    graph.node.append(helper.make_node("Concat", [*parts, f"{inner}_rest"], [f"{inner}_shape"], axis=0))
    graph.node.append(helper.make_node("Reshape", [inner, f"{inner}_shape"], [spec.name]))
    shape = next(o for o in graph.output if o.name == spec.name).type.tensor_type.shape
    shape.dim[len(spec.axes) - 1].dim_param = free


def _rename_output(graph: onnx.GraphProto, name: str, new_name: str) -> None:
    for node in graph.node:
        node.output[:] = [new_name if output == name else output for output in node.output]
        node.input[:] = [new_name if value == name else value for value in node.input]


def _append_extent(graph: onnx.GraphProto, axis: str | int, inputs: Sequence[TensorSpec], name: str) -> str:
    source = next(spec for spec in inputs if axis in spec.axes)
    position = source.axes.index(axis)
    graph.node.append(helper.make_node("Shape", [source.name], [name], start=position, end=position + 1))
    return name


def _strip(graph: onnx.ModelProto) -> None:
    """Drops what the exporter notes down: stack traces with this machine's paths among it."""
    stack: list[Any] = [graph, graph.graph, *graph.functions]
    for part in stack:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for holder in (graph.graph, *graph.functions):
        for entry in (*holder.node, *holder.value_info):
            entry.ClearField("doc_string")
            entry.ClearField("metadata_props")
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")


def _check(graph: onnx.ModelProto, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    onnx.checker.check_model(graph)
    found = signature(graph)
    wanted = {spec.name: (_ONNX_DTYPES[spec.dtype], spec.axes) for spec in (*inputs, *outputs)}
    if found != wanted:
        raise NotReady(f"the exported graph has {found}, the task says {wanted}", reason="EXPORT_FAILED")


def signature(graph: onnx.ModelProto) -> Mapping[str, tuple[int, tuple[str | int, ...]]]:
    """Returns dtype and axes of each input and output by name; symbolic axes by their names."""
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
        )
        for value in (*graph.graph.input, *graph.graph.output)
    }
