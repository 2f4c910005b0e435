"""Starts the real Triton for anybody's tests: `with started(home, runtime="openvino") as triton:`.

The fixtures `triton` and `openvino_triton` share one server of each runtime a session; import them into
your conftest.py. Put models below `triton.repository` and load them with `triton.load(name)`.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import psutil
import pytest
from onnx import TensorProto, helper
from tritonclient import grpc as tritonclient
from tritonclient.grpc import InferenceServerClient

from services.triton import ready

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class RunningTriton:
    """A Triton that answers at `address` and reads `repository`."""

    address: str
    repository: Path
    log: Path
    process: subprocess.Popen[bytes]
    client: InferenceServerClient

    def load(self, model: str) -> None:
        """Loads a model of the repository, or loads it again."""
        self.client.load_model(model)

    def unload(self, model: str) -> None:
        """Unloads a model and returns once its processes are gone."""
        held = self.stubs()
        self.client.unload_model(model)
        psutil.wait_procs(held, timeout=10)

    def stubs(self) -> list[psutil.Process]:
        """Returns the processes in which models run."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def infer(self, model: str, inputs: Arrays, *, version: str = "") -> dict[str, npt.NDArray[Any]]:
        """Returns all outputs by name."""
        answer = self.client.infer(model, tensors(inputs), model_version=version)
        return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}

    def add(self, model: str, graph: onnx.ModelProto, config: str, *, version: int = 1) -> None:
        """Puts a model with this graph, for either runtime, and this configuration into the repository."""
        folder = self.repository / model
        (folder / str(version)).mkdir(parents=True, exist_ok=True)
        onnx.save(graph, folder / str(version) / "model.onnx")
        (folder / "config.pbtxt").write_text(config)


def tensors(inputs: Arrays) -> list[tritonclient.InferInput]:
    """Returns `inputs` as tritonclient wants them."""
    made = []
    for name, array in inputs.items():
        dtype = "BYTES" if array.dtype == np.object_ else tritonclient.np_to_triton_dtype(array.dtype)
        tensor = tritonclient.InferInput(name, array.shape, dtype)
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


@contextmanager
def started(
    home: Path, *, runtime: str = "onnxruntime", port: int = 0, variables: Mapping[str, str] | None = None
) -> Iterator[RunningTriton]:
    """Yields a Triton of this checkout's environment, in `home`, on `port` or a free one; then stops it."""
    repository, log = home / "staged", home / "triton.log"
    repository.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{port or free_port()}"
    settings = {
        "CONCH_HOME": str(home),
        "CONCH_TRITON_ENV": str(environment()),
        "CONCH_RUNTIME": runtime,
        "CONCH_STAGED": str(repository),
        "CONCH_TRITON_ADDRESS": address,
        "CONCH_TRITON_HTTP_PORT": "0",
        "CONCH_TRITON_METRICS_PORT": "0",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.triton"],
            env=os.environ | settings | dict(variables or {}),
            stdout=output,
            stderr=output,
        )
    try:
        ready.wait(address, timeout_seconds=60, alive=lambda: process.poll() is None)
        with InferenceServerClient(address) as client:
            yield RunningTriton(address, repository, log, process, client)
    finally:
        process.kill()
        process.wait()


def environment() -> Path:
    """Returns Triton's environment as `make setup` builds it."""
    home = os.environ.get("CONCH_HOME", ".conch")
    return Path(os.environ.get("CONCH_TRITON_ENV") or Path(home) / "triton").absolute()


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def echo_graph(elem_type: int, *, inputs: tuple[str, ...] = ("x",)) -> onnx.ModelProto:
    """Returns a graph that gives `y0` for `x` and so on, `(batch, width)` of `elem_type`."""
    names = {name: f"y{i}" for i, name in enumerate(inputs)}
    axes = ["batch", "width"]
    graph = helper.make_graph(
        [helper.make_node("Identity", [x], [y]) for x, y in names.items()],
        "echo",
        [helper.make_tensor_value_info(x, elem_type, axes) for x in names],
        [helper.make_tensor_value_info(y, elem_type, axes) for y in names.values()],
    )
    return finished(graph)


def scores_graph(width: int = 8, labels: int = 3, seed: int = 7) -> onnx.ModelProto:
    """Returns a graph of `ids` int64 `(batch, sequence)` to `logits` float32 `(batch, labels)`.

    It looks up one vector a token (vocabulary 100, so a greater id is an error), averages and projects.
    """
    rng = np.random.default_rng(seed)
    weights = {
        "table": rng.normal(size=(100, width)).astype(np.float32),
        "projection": rng.normal(size=(width, labels)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["vectors"]),
            helper.make_node("ReduceMean", ["vectors", "axis"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "projection"], ["logits"]),
        ],
        "scores",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "label"])],
        [
            *(onnx.numpy_helper.from_array(array, name) for name, array in weights.items()),
            onnx.numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
        ],
    )
    return finished(graph)


def finished(graph: onnx.GraphProto) -> onnx.ModelProto:
    """Returns a checked model of a graph, in the IR version that our exports have."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    """The session's Triton of runtime onnxruntime."""
    yield from _session(tmp_path_factory, "onnxruntime")


@pytest.fixture(scope="session")
def openvino_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    """The session's Triton of runtime openvino."""
    yield from _session(tmp_path_factory, "openvino")


def _session(tmp_path_factory: pytest.TempPathFactory, runtime: str) -> Iterator[RunningTriton]:
    home = tmp_path_factory.mktemp(f"triton-{runtime}")
    with started(home, runtime=runtime) as running:
        yield running
    shutil.rmtree(home, ignore_errors=True)
