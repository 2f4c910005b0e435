from pathlib import Path

import pytest

from services.errors import NotReady
from services.repository import versions
from services.repository.fetching import READ_BY_GATEWAYS, fetch
from tests.contract.versions import damage, publish


def test_only_the_chosen_files_are_brought_and_the_manifest(tmp_path: Path) -> None:
    publish(tmp_path / "repository", 1)
    version = versions.read_version(str(tmp_path / "repository"), "sentiment", 1)
    fetch(version, tmp_path / "versions" / "one", READ_BY_GATEWAYS)
    assert {path.name for path in (tmp_path / "versions" / "one").iterdir()} == {
        *READ_BY_GATEWAYS,
        "manifest.json",
    }


def test_what_is_there_and_intact_is_not_brought_again(tmp_path: Path) -> None:
    folder = publish(tmp_path / "repository", 1)
    version = versions.read_version(str(tmp_path / "repository"), "sentiment", 1)
    fetch(version, tmp_path / "versions" / "one", READ_BY_GATEWAYS)
    (folder / "golden.json").unlink()
    fetch(version, tmp_path / "versions" / "one", READ_BY_GATEWAYS)


def test_a_damaged_copy_is_made_anew(tmp_path: Path) -> None:
    publish(tmp_path / "repository", 1)
    version = versions.read_version(str(tmp_path / "repository"), "sentiment", 1)
    folder = tmp_path / "versions" / "one"
    fetch(version, folder, READ_BY_GATEWAYS)
    right = (folder / "golden.json").read_bytes()
    (folder / "golden.json").unlink()
    (folder / "golden.json").write_bytes(b"wrong")
    fetch(version, folder, READ_BY_GATEWAYS)
    assert (folder / "golden.json").read_bytes() == right


def test_a_damaged_file_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    damage(publish(tmp_path / "repository", 1) / "golden.json")
    version = versions.read_version(str(tmp_path / "repository"), "sentiment", 1)
    with pytest.raises(NotReady, match=r"golden\.json is damaged"):
        fetch(version, tmp_path / "versions" / "one", READ_BY_GATEWAYS)
    assert not (tmp_path / "versions" / "one").exists()


def test_a_version_that_was_replaced_meanwhile_is_refused(tmp_path: Path) -> None:
    publish(tmp_path / "repository", 1)
    version = versions.read_version(str(tmp_path / "repository"), "sentiment", 1)
    version.digest = "0" * 64
    with pytest.raises(NotReady, match="changed while it was staged"):
        fetch(version, tmp_path / "versions" / "one", READ_BY_GATEWAYS)
