"""Triton's `onnxruntime` backend in python: serves the files that the official one serves.

Reads the official backend's parameters intra_op_thread_count, inter_op_thread_count, execution_mode,
enable_mem_arena, enable_mem_pattern and optimization.graph.level; beyond it, every parameter that
begins with "session." or "optimization." goes to onnxruntime as a session configuration entry, of which
session.intra_op.allow_spinning is "0" unless it is given.
Runs inside Triton's python stubs (numpy < 2) and cannot import Conch.
"""

import os
from collections.abc import Sequence
from typing import Any

import configuration
import execution
import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb

_DEFAULT_FILE = "model.onnx"
_DTYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(bfloat16)": "TYPE_BF16",
    "tensor(string)": "TYPE_STRING",
}
# The official backend's meaning of optimization.graph.level (onnxruntime_backend, src/onnxruntime.cc).
_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class TritonPythonModel:
    """One instance of a model; each instance is a process of its own."""

    @staticmethod
    def auto_complete_config(model: Any) -> Any:
        """Returns `model` with what it lacks read from the graph."""
        config = model.as_dict()
        if not configuration.is_complete(config):
            session = _open(config)
            configuration.complete(model, _tensors(session.get_inputs()), _tensors(session.get_outputs()))
        return model

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the graph. Raises ValueError if it does not fit config.pbtxt."""
        config = configuration.load(args)
        session = _open(config)
        configuration.check(config, _tensors(session.get_inputs()), _tensors(session.get_outputs()))
        self._graph = _Session(session)
        self._batched = config["max_batch_size"] > 0

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Returns one response a request."""
        responses: list[Any] = execution.execute(requests, self._graph, batched=self._batched)
        return responses


class _Session:
    def __init__(self, session: ort.InferenceSession) -> None:
        self._run = session.run
        self._strings = [t.name for t in session.get_inputs() if t.type == "tensor(string)"]
        self.outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: dict[str, execution.Array], outputs: Sequence[str]) -> list[execution.Array]:
        for name in self._strings:
            inputs[name] = _decoded(inputs[name])
        results: list[execution.Array] = self._run(outputs, inputs)
        return results


def _open(config: configuration.Config) -> ort.InferenceSession:
    path = os.path.join(pb.get_model_dir(), config["default_model_filename"] or _DEFAULT_FILE)
    return ort.InferenceSession(path, _options(config), providers=["CPUExecutionProvider"])


def _options(config: configuration.Config) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = configuration.integer(config, "intra_op_thread_count")
    options.inter_op_num_threads = configuration.integer(config, "inter_op_thread_count")
    options.enable_cpu_mem_arena = configuration.switch(config, "enable_mem_arena", default=True)
    options.enable_mem_pattern = configuration.switch(config, "enable_mem_pattern", default=True)
    parallel = configuration.switch(config, "execution_mode", default=False)
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if parallel else ort.ExecutionMode.ORT_SEQUENTIAL
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = _LEVELS.get(level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    # Threads that spin between calls take the cores from the gateway beside us: on 2 busy cores calls
    # took 1.4 to 1.9 times as long and 1.7 times the CPU. The parameter of the same name overrides it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name in config.get("parameters", {}):
        if name.startswith(("session.", "optimization.")):
            options.add_session_config_entry(name, configuration.text(config, name))
    return options


def _tensors(nodes: Sequence[ort.NodeArg]) -> list[configuration.Tensor]:
    return [
        configuration.Tensor(
            node.name,
            _DTYPES.get(node.type, node.type),
            tuple(dim if isinstance(dim, int) else -1 for dim in node.shape),
        )
        for node in nodes
    ]


def _decoded(strings: execution.Array) -> execution.Array:
    """Returns `str` objects for the bytes that Triton carries; onnxruntime would take their repr()."""
    return np.array([s.decode() for s in strings.ravel()], dtype=np.object_).reshape(strings.shape)
