"""What Triton gets to see: what the routes name, verified and certified, and nothing else."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conch.v1 import models_pb2
from services.errors import NotFound, NotReady
from services.repository import staging

from .conftest import certificate

Publish = Callable[..., str]


@pytest.fixture
def stage(tmp_path: Path, repository: str) -> Callable[..., list[models_pb2.Version]]:
    def run(
        *names: str, runtime: str = "onnxruntime", allow: tuple[str, ...] = ()
    ) -> list[models_pb2.Version]:
        routes = models_pb2.Routes()
        for name in names:
            model, _, version = name.partition("@")
            routes.routes.add(model=model).versions.add(version=int(version), weight=1)
        return staging.stage(
            routes,
            repository_uri=repository,
            staged=tmp_path / "staged",
            runtime=runtime,
            allow_uncertified=frozenset(allow),
        )

    return run


def seen(tmp_path: Path) -> list[str]:
    """Returns what Triton sees, as paths below the staged repository."""
    staged = tmp_path / "staged"
    return sorted(str(p.relative_to(staged)) for p in staged.glob("*/*") if not p.name.startswith("."))


def test_holds_exactly_the_versions_that_routes_name(
    publish: Publish, stage: Callable[..., list[models_pb2.Version]], tmp_path: Path
) -> None:
    digests = [publish(1), publish(2), publish(3), publish(1, model="topics")]
    versions = stage("sentiment@1", "sentiment@3")
    assert [(v.model, v.version, v.digest) for v in versions] == [
        ("sentiment", 1, digests[0]),
        ("sentiment", 3, digests[2]),
    ]
    assert seen(tmp_path) == [
        "sentiment/1",
        "sentiment/3",
        "sentiment/config.pbtxt",
        "sentiment/configs",
    ]
    stage("sentiment@3", "topics@1")
    assert "sentiment/1" not in seen(tmp_path)
    assert "topics/1" in seen(tmp_path)
    stage("topics@1")
    assert not (tmp_path / "staged" / "sentiment").exists()


def test_staging_again_touches_nothing(
    publish: Publish, stage: Callable[..., object], tmp_path: Path
) -> None:
    publish(1)
    stage("sentiment@1")
    paths = [p for p in (tmp_path / "staged" / "sentiment").rglob("*")]
    before = {p: p.stat().st_mtime_ns for p in paths}
    stage("sentiment@1")
    assert {p: p.stat().st_mtime_ns for p in paths} == before


def test_files_are_shared_with_the_repository_not_copied(
    publish: Publish, stage: Callable[..., object], tmp_path: Path, repository: str
) -> None:
    publish(1)
    stage("sentiment@1")
    published = Path(repository) / "sentiment" / "1" / "model.onnx"
    assert os.path.samefile(published, tmp_path / "staged" / "sentiment" / "1" / "model.onnx")
    assert published.stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "certificate.json"])
def test_a_damaged_byte_is_never_staged_and_named(
    publish: Publish, stage: Callable[..., object], tmp_path: Path, repository: str, name: str
) -> None:
    publish(1)
    path = Path(repository) / "sentiment" / "1" / name
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(NotReady, match=f"{name} is damaged") as caught:
        stage("sentiment@1")
    assert caught.value.metadata == {"model": "sentiment", "version": "1"}
    assert "sentiment/1" not in seen(tmp_path)


def test_a_missing_file_is_never_staged_and_named(
    publish: Publish, stage: Callable[..., object], repository: str
) -> None:
    publish(1)
    (Path(repository) / "sentiment" / "1" / "tokenizer.json").unlink()
    with pytest.raises(NotReady, match=r"tokenizer\.json is missing"):
        stage("sentiment@1")


def test_a_staged_copy_that_was_damaged_is_made_anew(
    publish: Publish, stage: Callable[..., object], tmp_path: Path
) -> None:
    publish(1)
    stage("sentiment@1")
    copy = tmp_path / "staged" / "sentiment" / "1" / "model.onnx"
    copy.unlink()
    copy.write_bytes(b"grapj")
    stage("sentiment@1")
    assert copy.read_bytes() == b"graph"


def test_a_version_that_failed_its_certificate_is_never_staged(
    publish: Publish, stage: Callable[..., object], tmp_path: Path
) -> None:
    publish(1, value=0.5)
    with pytest.raises(NotReady, match=r"max_abs_logit_difference 0\.5 is above 0\.01") as caught:
        stage("sentiment@1")
    assert caught.value.reason == "CERTIFICATE_FAILED"
    assert seen(tmp_path) == []


def test_a_version_without_certificate_is_never_staged_unless_it_is_named(
    publish: Publish, stage: Callable[..., list[models_pb2.Version]], tmp_path: Path
) -> None:
    publish(1, proof=models_pb2.Certificate())
    with pytest.raises(NotReady, match="sentiment@1 has no certificate"):
        stage("sentiment@1")
    with pytest.raises(NotReady, match="has no certificate"):
        stage("sentiment@1", allow=("sentiment@2",))
    assert seen(tmp_path) == []
    assert stage("sentiment@1", allow=("sentiment@1",))[0].version == 1


def test_a_certificate_for_other_bytes_is_never_accepted(
    publish: Publish, stage: Callable[..., object]
) -> None:
    other = {"model.onnx": b"other", "openvino.onnx": b"graph"}
    publish(1, proof=certificate("sentiment", 1, other))
    with pytest.raises(NotReady, match=r"issued for another model\.onnx"):
        stage("sentiment@1")
    stage("sentiment@1", runtime="openvino")


def test_a_certificate_of_another_version_is_never_accepted(
    publish: Publish, stage: Callable[..., object]
) -> None:
    files = {"model.onnx": b"graph", "openvino.onnx": b"graph"}
    publish(2, proof=certificate("sentiment", 1, files))
    with pytest.raises(NotReady, match="was issued for sentiment@1"):
        stage("sentiment@2")


def test_a_runtime_needs_its_own_verdict(publish: Publish, stage: Callable[..., object]) -> None:
    proof = certificate("sentiment", 1, {"model.onnx": b"graph", "openvino.onnx": b"graph"})
    del proof.verdicts[1]
    publish(1, proof=proof)
    stage("sentiment@1")
    with pytest.raises(NotReady, match="not certified for openvino"):
        stage("sentiment@1", runtime="openvino")


def test_a_failure_takes_nothing_away(publish: Publish, stage: Callable[..., object], tmp_path: Path) -> None:
    publish(1)
    publish(2, value=0.5)
    stage("sentiment@1")
    with pytest.raises(NotReady):
        stage("sentiment@2")
    assert "sentiment/1" in seen(tmp_path)


def test_an_unknown_version_is_not_found(publish: Publish, stage: Callable[..., object]) -> None:
    publish(1)
    with pytest.raises(NotFound, match="no version 7 of model sentiment"):
        stage("sentiment@7")


def test_a_runtime_without_its_configuration_is_refused(
    publish: Publish, stage: Callable[..., object], repository: str
) -> None:
    publish(1)
    (Path(repository) / "sentiment" / "configs" / "openvino.pbtxt").unlink()
    stage("sentiment@1")
    with pytest.raises(NotReady, match=r"no configs/openvino\.pbtxt"):
        stage("sentiment@1", runtime="openvino")
