"""Artifacts: complete or not there, whole or not accepted, and every failure named."""

import os
from pathlib import Path

import pytest

from conch.v1 import models_pb2
from services import storage, stores
from services.errors import InvalidRequest, NotFound, NotReady


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files, one below a subfolder."""
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "deep" / "weights.bin").write_bytes(b"weights")
    return made


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_what_was_uploaded_comes_down_with_the_same_digest(folder: Path, tmp_path: Path) -> None:
    uri = (tmp_path / "artifact").as_uri()
    digest = storage.upload(folder, uri, models_pb2.Manifest())
    manifest, found = storage.download(uri, tmp_path / "copy")
    assert found == digest == storage.sha256_of(tmp_path / "copy" / "manifest.json")
    assert [file.path for file in manifest.files] == ["config.json", "deep/weights.bin"]
    assert (tmp_path / "copy" / "deep" / "weights.bin").read_bytes() == b"weights"
    assert manifest.HasField("create_time")


def test_a_folder_that_lies_at_the_uri_is_completed_in_place(folder: Path) -> None:
    storage.upload(folder, str(folder), models_pb2.Manifest())
    assert storage.read_manifest(str(folder))[0].files[0].path == "config.json"


def test_without_a_manifest_there_is_no_artifact(folder: Path, tmp_path: Path) -> None:
    for uri in (str(folder), str(tmp_path / "nowhere")):
        with pytest.raises(NotFound, match="no complete artifact"):
            storage.read_manifest(uri)


@pytest.mark.parametrize("text", ["", "{", '{"files": 3}', "[]"])
def test_a_manifest_that_cannot_be_read_is_named(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(NotReady, match=r"manifest\.json is damaged"):
        storage.read_manifest(str(folder))


def test_a_damaged_file_is_named_and_not_left_behind(folder: Path, tmp_path: Path) -> None:
    storage.upload(folder, str(folder), models_pb2.Manifest())
    damage(folder / "deep" / "weights.bin")
    with pytest.raises(NotReady, match=r"deep/weights\.bin is damaged"):
        storage.download(str(folder), tmp_path / "copy")
    assert not (tmp_path / "copy" / "deep" / "weights.bin").exists()
    assert not (tmp_path / "copy" / "manifest.json").exists()


def test_a_missing_file_is_named(folder: Path, tmp_path: Path) -> None:
    storage.upload(folder, str(folder), models_pb2.Manifest())
    (folder / "config.json").unlink()
    with pytest.raises(NotReady, match=r"config\.json is missing"):
        storage.download(str(folder), tmp_path / "copy")


@pytest.mark.parametrize("path", ["../stolen", "/etc/passwd", "a/../../b", ""])
def test_a_manifest_cannot_name_files_elsewhere(folder: Path, path: str) -> None:
    storage.upload(folder, str(folder), models_pb2.Manifest())
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace("config.json", path))
    with pytest.raises(NotReady, match="outside of it"):
        storage.read_manifest(str(folder))


def test_a_second_upload_is_incomplete_until_its_end(folder: Path, tmp_path: Path) -> None:
    uri = str(tmp_path / "artifact")
    storage.upload(folder, uri, models_pb2.Manifest())
    (tmp_path / "artifact" / "config.json").unlink()
    (tmp_path / "artifact" / "config.json").mkdir()
    with pytest.raises(NotReady):
        storage.upload(folder, uri, models_pb2.Manifest())
    with pytest.raises(NotFound):
        storage.read_manifest(uri)


def test_leftovers_of_a_killed_writer_are_no_part_of_an_artifact(folder: Path) -> None:
    (folder / f".config.json.77{stores.PARTIAL}").write_text("half")
    assert [file.path for file in storage.describe(folder)] == ["config.json", "deep/weights.bin"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "file"
    storage.write_bytes(str(place), b"old")
    with pytest.raises(NotFound):
        stores.upload_file(tmp_path / "nowhere", str(place))
    assert place.read_bytes() == b"old"
    assert [path.name for path in place.parent.iterdir()] == ["file"]


def test_a_path_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotReady, match=r"Not a directory|File exists"):
        storage.write_bytes(str(tmp_path / "file" / "below"), b"")


def test_files_are_linked_not_copied(folder: Path, tmp_path: Path) -> None:
    storage.upload(folder, str(folder), models_pb2.Manifest())
    storage.download(str(folder), tmp_path / "copy")
    assert os.path.samefile(folder / "config.json", tmp_path / "copy" / "config.json")


def test_removing_is_thorough_and_may_be_repeated(folder: Path) -> None:
    for _ in range(2):
        storage.remove(str(folder))
    assert not folder.exists()


def test_nothing_is_listed_where_nothing_is(tmp_path: Path) -> None:
    assert storage.list_files(str(tmp_path / "nowhere")) == []
    assert storage.list_folders(str(tmp_path / "nowhere")) == []


def test_files_and_folders_are_listed_by_name(folder: Path) -> None:
    assert storage.list_files(str(folder)) == ["config.json", "deep/weights.bin"]
    assert storage.list_folders(str(folder)) == ["deep"]


@pytest.mark.parametrize("uri", ["", "ftp://host/x", "https://host/x.csv", "a\0b"])
def test_a_uri_of_no_kind_is_refused_by_field(uri: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        storage.check_uri(uri, field="dataset.train_uri")
    assert caught.value.violations[0].field == "dataset.train_uri"


def test_a_file_that_is_not_there_is_refused_by_field(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="there is no file"):
        storage.fetch_file(str(tmp_path / "none.csv"), tmp_path / "copy", field="dataset.train_uri")


def test_a_local_file_is_read_where_it_lies(folder: Path, tmp_path: Path) -> None:
    path = folder / "config.json"
    assert storage.fetch_file(path.as_uri(), tmp_path / "copy") == path


def test_spaces_and_umlauts_survive_a_file_uri(tmp_path: Path) -> None:
    path = tmp_path / "my träining data.csv"
    path.touch()
    assert storage.local_path(path.as_uri()) == path
