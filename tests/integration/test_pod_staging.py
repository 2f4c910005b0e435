"""What `conch stage` leaves, as a pod's Triton takes it: everything at its start, and only then ready."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
import structlog
from google.protobuf import json_format
from tritonclient.grpc import service_pb2 as kserve
from tritonclient.grpc import service_pb2_grpc

from conch.v1 import conversion_pb2, models_pb2, worker_pb2
from services import storage
from services.cli.__main__ import main
from services.converter import run as converter
from services.converter import validation
from services.jobs.reporting import Reporter
from services.tasks.encoding import Encoder, pad
from services.tasks.tensors import FloatArray
from tests.integration.triton import Arrays, environment, free_port, started
from tests.unit.converter import checkpoints

POD = {"CONCH_TRITON_CONTROL": "none"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 of "sentiment", as today's converter makes it: certified for two runtimes, without plan."""
    folder = tmp_path_factory.mktemp("converted")
    labels = ["good", "bad"]
    checkpoint = checkpoints.save(folder / "checkpoint", checkpoints.bert(labels), labels)
    spec = validation.complete(
        conversion_pb2.ConversionSpec(
            checkpoint_uri=checkpoint,
            model="sentiment",
            num_parity_examples=32,
            limits={"label_flip_rate": 0.2},
        )
    )
    order = worker_pb2.WorkOrder(
        job_id="convert", attempt=1, output_uri=str(folder / "repository"), version=1, conversion=spec
    )
    order.work_dir = str(folder / "work")
    converter.run(order, Reporter(folder / "spool"))
    return folder / "repository"


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def stage(repository: Path, home: Path, runtime: str, *names: str) -> None:
    routes = models_pb2.Routes()
    for name in names:
        model, _, version = name.partition("@")
        routes.routes.add(model=model, pool="pool").versions.add(version=int(version), weight=1)
    home.mkdir(exist_ok=True)
    (home / "routes.json").write_text(json_format.MessageToJson(routes))
    options = {
        "--pool": "pool",
        "--routes": str(home / "routes.json"),
        "--staged": str(home / "staged"),
        "--repository": str(repository),
        "--runtime": runtime,
    }
    assert main(["stage", *(word for option in options.items() for word in option)]) == 0


def golden(folder: Path) -> tuple[Arrays, FloatArray]:
    """Returns a version's golden examples as Triton takes them, and the trained model's answers."""
    examples = json_format.Parse((folder / "golden.json").read_text(), models_pb2.GoldenExamples()).examples
    checkpoint = storage.read_manifest(str(folder))[0].version.checkpoint
    encoder = Encoder.from_file(folder / "tokenizer.json", checkpoint.max_length)
    tokens = encoder.encode([example.text for example in examples])
    want = [example.windows[0].outputs["logits"].values for example in examples]
    return pad(tokens, max(map(len, tokens)), encoder.pad_id), np.array(want)


def test_a_pool_of_tensorrt_serves_the_onnx_twin_where_there_is_no_plan(
    repository: Path, tmp_path: Path
) -> None:
    stage(repository, tmp_path, "tensorrt", "sentiment@1")
    inputs, want = golden(tmp_path / "staged/sentiment/1")
    with started(tmp_path, runtime="tensorrt", variables=POD) as triton:
        assert triton.client.get_model_config("sentiment").config.backend == "onnxruntime"
        np.testing.assert_allclose(triton.infer("sentiment", inputs)["logits"], want, atol=2e-5)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_model_that_could_not_be_staged_holds_the_pod_back_and_no_other_model(
    repository: Path, tmp_path: Path, runtime: str
) -> None:
    stage(repository, tmp_path, runtime, "sentiment@1", "topics@7")
    with running(tmp_path, runtime) as stub:
        assert stub.ServerLive(kserve.ServerLiveRequest()).live
        assert not stub.ServerReady(kserve.ServerReadyRequest()).ready
        assert stub.ModelReady(kserve.ModelReadyRequest(name="sentiment", version="1")).ready


@contextmanager
def running(home: Path, runtime: str) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    """Yields a Triton that answers, be it ready or not, in a pod's way of starting."""
    address = f"127.0.0.1:{free_port()}"
    settings = {
        "CONCH_HOME": str(home),
        "CONCH_TRITON_ENV": str(environment()),
        "CONCH_RUNTIME": runtime,
        "CONCH_STAGED": str(home / "staged"),
        "CONCH_TRITON_ADDRESS": address,
        "CONCH_TRITON_HTTP_PORT": "0",
        "CONCH_TRITON_METRICS_PORT": "0",
    }
    with (home / "triton.log").open("wb") as log:
        command = [sys.executable, "-m", "services.triton"]
        process = subprocess.Popen(command, env=os.environ | settings | POD, stdout=log, stderr=log)
    try:
        with grpc.insecure_channel(address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            stub.ServerLive(kserve.ServerLiveRequest(), timeout=60, wait_for_ready=True)
            yield stub
    finally:
        process.kill()
        process.wait()
