"""A version is published as a whole or not at all, whatever happens while it is."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services import storage
from services.errors import AlreadyExists, InvalidRequest, NotFound, NotReady
from services.repository import versions

from .conftest import configs

Publish = Callable[..., str]

# Publishes the version named on its command line over and over, until it is killed.
PUBLISHER = """
import sys
from pathlib import Path
from conch.v1 import models_pb2
from services.repository import publishing

folder, repository, config = sys.argv[1:]
texts = {"config.pbtxt": config}
version = 0
print("begun", flush=True)
while True:
    version += 1
    publishing.publish(
        Path(folder), repository_uri=repository, model="sentiment", version=version, configs=texts,
        manifest=models_pb2.VersionManifest(model="sentiment", version=version, conversion_job=str(version)),
    )
    print(version, flush=True)
"""


def assert_whole(repository: str, version: int) -> None:
    """Fails unless every file of a version is what its manifest says."""
    uri = str(Path(repository) / "sentiment" / str(version))
    manifest, _ = storage.read_manifest(uri)
    assert manifest.files
    for file in manifest.files:
        assert storage.sha256_of(Path(uri) / file.path) == file.sha256


def test_what_was_published_is_read_back(publish: Publish, repository: str) -> None:
    digest = publish(1)
    version = versions.read_version(repository, "sentiment", 1)
    assert version.digest == digest
    assert version.manifest.conversion_job == "job-1"
    assert version.certificate.verdicts[0].passed
    data = (Path(repository) / "sentiment" / "1" / "manifest.json").read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest
    assert versions.list_versions(repository, "sentiment") == [1]
    assert versions.list_models(repository) == ["sentiment"]


def test_versions_are_listed_in_numeric_order(publish: Publish, repository: str) -> None:
    for version in (10, 2, 1):
        publish(version)
    assert versions.list_versions(repository, "sentiment") == [1, 2, 10]


def test_nothing_is_listed_where_nothing_is(repository: str) -> None:
    assert versions.list_models(repository) == []
    assert versions.list_versions(repository, "sentiment") == []
    with pytest.raises(NotFound, match="no version 1 of model sentiment"):
        versions.read_version(repository, "sentiment", 1)


def test_equal_graphs_take_the_room_of_one(publish: Publish, repository: str) -> None:
    publish(1)
    folder = Path(repository) / "sentiment" / "1"
    assert os.path.samefile(folder / "model.onnx", folder / "openvino.onnx")


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (configs(dtype="TYPE_FP16"), "output 'logits' is TYPE_FP16, was TYPE_FP32"),
        (configs(labels=3), r"output 'logits' has dims \[-1, 3\], had \[-1, -1\]"),
        (
            {k: v.replace("input_ids", "tokens") for k, v in configs().items()},
            "input 'input_ids' is missing; input 'tokens' is new",
        ),
    ],
)
def test_a_version_that_breaks_the_signature_is_refused_with_what_differs(
    publish: Publish, repository: str, texts: dict[str, str], complaint: str
) -> None:
    publish(1)
    before = (Path(repository) / "sentiment" / "config.pbtxt").read_text()
    with pytest.raises(NotReady, match=complaint) as caught:
        publish(2, texts=texts)
    assert caught.value.reason == "SIGNATURE_CHANGED"
    assert versions.list_versions(repository, "sentiment") == [1]
    assert (Path(repository) / "sentiment" / "config.pbtxt").read_text() == before


def test_a_new_parameter_is_no_new_signature(publish: Publish, repository: str) -> None:
    publish(1)
    texts = {path: text + "\n# tuned\n" for path, text in configs().items()}
    publish(2, texts=texts)
    assert "tuned" in (Path(repository) / "sentiment" / "config.pbtxt").read_text()


def test_a_config_that_did_not_change_is_not_written(publish: Publish, repository: str) -> None:
    publish(1)
    path = Path(repository) / "sentiment" / "config.pbtxt"
    before = path.stat().st_mtime_ns
    publish(2)
    assert path.stat().st_mtime_ns == before


def test_the_same_job_publishes_once(publish: Publish, repository: str) -> None:
    digest = publish(1, job="job-a")
    assert publish(1, job="job-a", graph=b"exported again") == digest
    assert_whole(repository, 1)
    with pytest.raises(AlreadyExists, match="version 1 of sentiment is published already"):
        publish(1, job="job-b")


def test_a_leftover_without_manifest_is_ignored_and_replaced(publish: Publish, repository: str) -> None:
    leftover = Path(repository) / "sentiment" / "1"
    leftover.mkdir(parents=True)
    (leftover / "stale.onnx").write_bytes(b"half")
    assert versions.list_versions(repository, "sentiment") == []
    publish(1)
    assert not (leftover / "stale.onnx").exists()
    assert_whole(repository, 1)


def test_a_model_name_that_leaves_the_repository_is_refused(publish: Publish) -> None:
    for name in ("../elsewhere", ".hidden", "a/b", ""):
        with pytest.raises(InvalidRequest, match="is no model name"):
            publish(1, model=name)


def test_two_publishers_at_once_get_a_version_each(publish: Publish, repository: str) -> None:
    start = threading.Barrier(4)

    def run(version: int) -> str:
        start.wait()
        return publish(version)

    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(run, range(1, 5)))
    assert len(set(digests)) == 4
    for version in (1, 2, 3, 4):
        assert_whole(repository, version)
    assert versions.list_versions(repository, "sentiment") == [1, 2, 3, 4]


def test_of_two_first_versions_that_differ_one_is_refused(publish: Publish, repository: str) -> None:
    start = threading.Barrier(2)

    def run(version: int) -> bool:
        start.wait()
        try:
            publish(version, texts=configs(labels=version))
        except NotReady:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(run, (1, 2))) == [False, True]
    published = versions.list_versions(repository, "sentiment")
    assert (Path(repository) / "sentiment" / "config.pbtxt").read_text() == configs(labels=published[0])[
        "config.pbtxt"
    ]


def test_a_publisher_killed_at_any_moment_leaves_no_half_version(
    publish: Publish, repository: str, tmp_path: Path
) -> None:
    folder = tmp_path / "big"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(random.Random(1).randbytes(1 << 20))
    config = configs()["config.pbtxt"]
    dice = random.Random(5)
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(folder), repository, config],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        # The moment is chance: it is what is tested.
        threading.Event().wait(dice.uniform(0.0, 0.08))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for version in versions.list_versions(repository, "sentiment"):
            assert_whole(repository, version)
    published = versions.list_versions(repository, "sentiment")
    last = max(published, default=0)
    publish(last + 1, texts={"config.pbtxt": config})
    assert versions.list_versions(repository, "sentiment") == [*published, last + 1]
    hidden = [p.name for p in (Path(repository) / "sentiment").iterdir() if p.name.endswith(".partial")]
    assert hidden == []


def test_a_full_disk_says_so_and_leaves_what_was_there(tmp_path: Path) -> None:
    script = Path(__file__).with_name("full_disk.py")
    command = ["unshare", "-rm", sys.executable, str(script), str(tmp_path)]
    probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True)
    if probe.returncode:
        pytest.skip("a small file system cannot be mounted here")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "publish": "DISK_FULL",
        "versions": [1],
        "leftovers": [],
        "intact": True,
        "stage": "DISK_FULL",
        "staged": [],
    }
