"""What is kept of an attempt outside of its machine."""

from pathlib import Path

import pytest

from services import stores
from services.errors import BackendUnavailable
from services.jobs.work import KeptFolders

LAST = "state.json"


def saved(folder: Path, name: str, text: str = "weights") -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "weights").write_text(text)
    (folder / name / LAST).write_text("{}")


def test_what_was_kept_comes_back_on_another_machine(tmp_path: Path) -> None:
    uri = str(tmp_path / "kept")
    saved(tmp_path / "one", "checkpoint-1")
    KeptFolders(tmp_path / "one", uri, LAST).keep()
    KeptFolders(tmp_path / "two", uri, LAST).restore()
    assert (tmp_path / "two" / "checkpoint-1" / "weights").read_text() == "weights"
    assert (tmp_path / "two" / "checkpoint-1" / LAST).exists()


def test_what_is_here_no_more_is_kept_no_more(tmp_path: Path) -> None:
    uri, here = str(tmp_path / "kept"), tmp_path / "here"
    kept = KeptFolders(here, uri, LAST)
    saved(here, "checkpoint-1")
    kept.keep()
    saved(here, "checkpoint-2")
    stores.remove(str(here / "checkpoint-1"))
    kept.keep()
    assert stores.list_folders(uri) == ["checkpoint-2"] or stores.list_files(uri) == [
        "checkpoint-2/state.json",
        "checkpoint-2/weights",
    ]


def test_a_folder_that_was_not_kept_to_its_end_does_not_come_back_and_is_kept_anew(tmp_path: Path) -> None:
    uri = str(tmp_path / "kept")
    saved(tmp_path / "kept", "checkpoint-1", "of a worker that was lost")
    (tmp_path / "kept" / "checkpoint-1" / LAST).unlink()
    kept = KeptFolders(tmp_path / "here", uri, LAST)
    kept.restore()
    assert not (tmp_path / "here").exists()
    saved(tmp_path / "here", "checkpoint-1")
    kept.keep()
    assert (tmp_path / "kept" / "checkpoint-1" / "weights").read_text() == "weights"


def test_a_store_that_is_away_costs_no_training_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "here", "checkpoint-1")
    kept = KeptFolders(tmp_path / "here", str(tmp_path / "kept"), LAST)

    def away(source: Path, uri: str) -> None:
        raise BackendUnavailable("storage is away", reason="STORAGE_UNAVAILABLE")

    with monkeypatch.context() as patched:
        patched.setattr(stores, "upload_file", away)
        kept.keep()
    kept.keep()
    assert stores.list_files(str(tmp_path / "kept" / "checkpoint-1")) == [LAST, "weights"]


def test_on_one_machine_nothing_is_kept(tmp_path: Path) -> None:
    saved(tmp_path / "here", "checkpoint-1")
    kept = KeptFolders(tmp_path / "here", "", LAST)
    kept.restore()
    kept.keep()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
