"""Publishing and staging over a real S3 server (rclone's)."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch.v1 import models_pb2
from services import storage, stores
from services.errors import BackendUnavailable, InvalidRequest, NotFound, NotReady
from services.repository import publishing, staging, versions
from tests.integration.triton import free_port

KEY, SECRET = "conch-test-access-key", "conch-test-secret-key"
REPOSITORY = "s3://bucket/models"
Store = tuple[Path, subprocess.Popen[bytes]]
CONFIG = 'input [{ name: "x" data_type: TYPE_FP32 dims: [%d] }]'


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The folder behind bucket "bucket" of a running S3 server, and the server."""
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}:/usr/bin")
    if program is None:
        pytest.skip("no rclone; install the extra `dev`")
    bucket = tmp_path / "s3" / "bucket"
    bucket.mkdir(parents=True)
    address = f"127.0.0.1:{free_port()}"
    command = [
        program,
        "serve",
        "s3",
        "--addr",
        address,
        "--auth-key",
        f"{KEY},{SECRET}",
        str(tmp_path / "s3"),
    ]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
