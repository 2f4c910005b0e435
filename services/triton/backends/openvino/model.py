"""Triton's `openvino` backend in python: serves ONNX (or IR) files by the configuration of the official one.

Reads the official backend's parameters PERFORMANCE_HINT, INFERENCE_NUM_THREADS,
COMPILATION_NUM_THREADS, NUM_STREAMS and HINT_BF16 (only YES means anything); others are ignored.
Without HINT_BF16 it asks for f32, because OpenVINO computes in bf16 by default where the CPU can.
Runs inside Triton's python stubs (numpy < 2) and cannot import Conch.
"""

import os
from collections.abc import Sequence
from typing import Any

import configuration
import execution
import openvino as ov
import triton_python_backend_utils as pb

_DEFAULT_FILE = "model.xml"
_DTYPES = {
    "boolean": "TYPE_BOOL",
    "u8": "TYPE_UINT8",
    "u16": "TYPE_UINT16",
    "u32": "TYPE_UINT32",
    "u64": "TYPE_UINT64",
    "i8": "TYPE_INT8",
    "i16": "TYPE_INT16",
    "i32": "TYPE_INT32",
    "i64": "TYPE_INT64",
    "f16": "TYPE_FP16",
    "f32": "TYPE_FP32",
    "f64": "TYPE_FP64",
    "bf16": "TYPE_BF16",
    "string": "TYPE_STRING",
}
# Neither does the official backend; OpenVINO 2026.4.1's string tensors corrupt the heap in Python.
_UNSERVED = configuration.UNSERVED | {"TYPE_STRING": "the openvino backend has no strings"}
_NUMBERS = ("INFERENCE_NUM_THREADS", "COMPILATION_NUM_THREADS")
_WORDS = ("PERFORMANCE_HINT", "NUM_STREAMS")


class TritonPythonModel:
    """One instance of a model; each instance is a process of its own."""

    @staticmethod
    def auto_complete_config(model: Any) -> Any:
        """Returns `model` with what it lacks read from the graph."""
        config = model.as_dict()
        if not configuration.is_complete(config):
            graph = ov.Core().read_model(_path(config))
            configuration.complete(model, _tensors(graph.inputs), _tensors(graph.outputs))
        return model

    def initialize(self, args: dict[str, str]) -> None:
        """Compiles the graph. Raises ValueError if it does not fit config.pbtxt."""
        config = configuration.load(args)
        core = ov.Core()
        model = core.read_model(_path(config))
        configuration.check(config, _tensors(model.inputs), _tensors(model.outputs), unserved=_UNSERVED)
        self._graph = _Compiled(core.compile_model(model, "CPU", _properties(config)))
        self._batched = config["max_batch_size"] > 0

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Returns one response a request."""
        responses: list[Any] = execution.execute(requests, self._graph, batched=self._batched)
        return responses


class _Compiled:
    def __init__(self, model: ov.CompiledModel) -> None:
        self._request = model.create_infer_request()
        # Ports by number: by name every call would cost 20 us more.
        self._inputs = {port.get_any_name(): i for i, port in enumerate(model.inputs)}
        self._outputs = {port.get_any_name(): i for i, port in enumerate(model.outputs)}
        self.outputs = list(self._outputs)

    def run(self, inputs: dict[str, execution.Array], outputs: Sequence[str]) -> list[execution.Array]:
        ports = {self._inputs[name]: array for name, array in inputs.items()}
        results = self._request.infer(ports, share_inputs=True, share_outputs=True)
        return [results[self._outputs[name]] for name in outputs]


def _path(config: configuration.Config) -> str:
    return os.path.join(pb.get_model_dir(), config["default_model_filename"] or _DEFAULT_FILE)


def _properties(config: configuration.Config) -> dict[str, str | int]:
    bf16 = configuration.text(config, "HINT_BF16").upper() == "YES"
    properties: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32"}
    properties |= {n: number for n in _NUMBERS if (number := configuration.integer(config, n))}
    properties |= {n: word.upper() for n in _WORDS if (word := configuration.text(config, n))}
    return properties


def _tensors(ports: Sequence[Any]) -> list[configuration.Tensor]:
    return [
        configuration.Tensor(
            port.get_any_name(), _DTYPES.get(kind := port.element_type.get_type_name(), kind), _dims(port)
        )
        for port in ports
    ]


def _dims(port: Any) -> tuple[int, ...]:
    return tuple(dim.get_length() if dim.is_static else -1 for dim in port.partial_shape)
