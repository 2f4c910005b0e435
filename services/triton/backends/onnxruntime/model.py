"""Triton's `onnxruntime` backend in python: serves the same model.onnx and config.pbtxt as the official one.

Runs inside Triton's python stubs (numpy < 2) and cannot import Conch.
"""

import os
from collections.abc import Sequence
from typing import Any

import execution
import onnxruntime as ort
import triton_python_backend_utils as pb

_DEFAULT_FILE = "model.onnx"


class TritonPythonModel:
    """One instance of a model; Triton makes as many as instance_group says, each in its own process."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        return config

    def initialize(self, args: dict[str, str]) -> None:
        config = execution.load_config(args)
        path = os.path.join(pb.get_model_dir(), config["default_model_filename"] or _DEFAULT_FILE)
        self._graph = _Session(
            ort.InferenceSession(path, _options(config), providers=["CPUExecutionProvider"])
        )
        self._batched = config["max_batch_size"] > 0

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return execution.execute(requests, self._graph, batched=self._batched)


class _Session:
    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: dict[str, execution.Array], outputs: Sequence[str]) -> list[execution.Array]:
        results: list[execution.Array] = self._session.run(outputs, inputs)
        return results


def _options(config: execution.Config) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = execution.integer(config, "intra_op_thread_count")
    options.inter_op_num_threads = execution.integer(config, "inter_op_thread_count")
    return options
