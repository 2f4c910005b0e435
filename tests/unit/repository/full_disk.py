"""Run by test_publishing in a mount namespace of its own: publishes and stages onto a 1 MiB disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

from conch.v1 import models_pb2
from services import storage
from services.errors import NotReady
from services.repository import publishing, staging, versions

CONFIG = 'max_batch_size: 1 input [{name: "x" data_type: TYPE_FP32 dims: [1]}]'


def publish(work: Path, repository: str, version: int, num_bytes: int) -> str:
    folder = work / str(version)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(os.urandom(num_bytes))
    manifest = models_pb2.VersionManifest(model="m", version=version, conversion_job=str(version))
    try:
        publishing.publish(
            folder,
            repository_uri=repository,
            model="m",
            version=version,
            configs={"config.pbtxt": CONFIG},
            manifest=manifest,
        )
    except NotReady as error:
        return error.reason
    return "published"


def stage(repository: str, staged: Path, version: int) -> str:
    route = models_pb2.Route(model="m", versions=[models_pb2.WeightedVersion(version=version, weight=1)])
    try:
        staging.stage(
            models_pb2.Routes(routes=[route]),
            repository_uri=repository,
            staged=staged,
            runtime="onnxruntime",
            allow_uncertified=frozenset({f"m@{version}"}),
        )
    except NotReady as error:
        return error.reason
    return "staged"


def main() -> None:
    work = Path(sys.argv[1])
    disk = work / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    repository = str(disk / "repository")
    publish(work, repository, 1, 300_000)
    refused = publish(work, repository, 2, 900_000)
    place = disk / "repository" / "m"
    manifest, _ = storage.read_manifest(str(place / "1"))
    roomy = str(work / "roomy")
    publish(work, roomy, 3, 900_000)
    answer = {
        "publish": refused,
        "versions": versions.list_versions(repository, "m"),
        "leftovers": [p.name for p in place.iterdir() if p.name.endswith(".partial")],
        "intact": all(storage.sha256_of(place / "1" / f.path) == f.sha256 for f in manifest.files),
        "stage": stage(roomy, disk / "staged", 3),
        "staged": [p.name for p in (disk / "staged" / "m").glob("[0-9]*")],
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
