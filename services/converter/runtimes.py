"""Runs a graph in this process as Triton's backends will run it: same runtime, same settings.

Knows onnxruntime and OpenVINO; knows nothing about examples or limits.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import openvino

from conch.v1 import job_pb2
from services.tasks.tensors import Array

Run = Callable[[Mapping[str, Array]], dict[str, Array]]


def has_bf16() -> bool:
    """Returns whether this machine's CPU computes in bf16; OpenVINO takes fp32 where it does not."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def open_graph(path: Path, runtime: job_pb2.Runtime.ValueType) -> Run:
    """Returns a function from input tensors to output tensors, both by name, over the graph at `path`."""
    return _open_openvino(path) if runtime == job_pb2.RUNTIME_OPENVINO else _open_onnxruntime(path)


def session_options() -> onnxruntime.SessionOptions:
    """Returns the options of onnxruntime sessions that run beside training jobs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: warnings here are about fusions that did not apply
    # Idle threads that spin take the cores away from those jobs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open_onnxruntime(path: Path) -> Run:
    session = onnxruntime.InferenceSession(path, session_options(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


def _open_openvino(path: Path) -> Run:
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16"}
    compiled = openvino.Core().compile_model(path, "CPU", hints)
    names = [output.get_any_name() for output in compiled.outputs]

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        answer = compiled(dict(inputs))
        return {name: np.array(answer[name], dtype=np.float32) for name in names}

    return run
