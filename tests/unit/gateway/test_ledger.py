"""The ledger: sequence without gap, across restarts and crashes; pages, newest first."""

import errno
import os
from pathlib import Path

import pytest

from conch.v1 import models_pb2
from services.errors import NotReady
from services.gateway.ledger import Ledger


def change(model: str, version: int, actor: str = "anna") -> models_pb2.RouteChange:
    versions = [models_pb2.WeightedVersion(version=version, weight=1)]
    return models_pb2.RouteChange(actor=actor, after=models_pb2.Route(model=model, versions=versions))


def sequences(ledger: Ledger, **wanted: object) -> list[int]:
    asked = {"model": "", "size": 100, "below": None} | wanted
    return [c.sequence for c in ledger.page(**asked)[0]]  # type: ignore[arg-type]


def test_lines_are_numbered_without_gap_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "home" / "ledger.jsonl"
    assert [Ledger(path).append(change("a", n)).sequence for n in (1, 2, 3)] == [1, 2, 3]
    again = Ledger(path)
    assert sequences(again) == [3, 2, 1]
    assert again.append(change("a", 4)).time.seconds > 0
    assert len(path.read_text().splitlines()) == 4


def test_a_line_torn_by_a_crash_is_cut_off_and_its_number_used_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path).append(change("a", 1))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    ledger = Ledger(path)
    assert path.read_bytes() == whole
    assert ledger.append(change("a", 2)).sequence == 2
    assert sequences(Ledger(path)) == [2, 1]


def test_a_torn_end_inside_a_character_is_cut_off_too(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path).append(change("a", 1))
    with path.open("ab") as file:
        file.write('{"actor": "é'.encode()[:-1])
    assert sequences(Ledger(path)) == [1]


def test_a_line_damaged_by_hand_is_passed_over_and_numbers_go_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for version in (1, 2, 3):
        ledger.append(change("a", version))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "oops\n" + lines[2])
    again = Ledger(path)
    assert sequences(again) == [3, 1]
    assert again.append(change("a", 4)).sequence == 4


def test_pages_go_from_the_newest_to_the_oldest(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for version in range(1, 6):
        ledger.append(change("a", version))
    seen, below = [], None
    while True:
        page, below = ledger.page(model="", size=2, below=below)
        seen += [c.sequence for c in page]
        if below is None:
            break
    assert seen == [5, 4, 3, 2, 1]


def test_a_page_that_ends_with_the_ledger_is_the_last(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for version in (1, 2):
        ledger.append(change("a", version))
    assert ledger.page(model="", size=2, below=None)[1] is None


def test_one_model_is_picked_out(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for model in ("a", "b", "a"):
        ledger.append(change(model, 1))
    assert sequences(ledger, model="a") == [3, 1]
    assert ledger.models() == {"a", "b"}
    assert ledger.last("c") is None
    last = ledger.last("b")
    assert last is not None
    assert last.model == "b"


def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.append(change("a", 1))
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(NotReady, match="No space left"):
            ledger.append(change("a", 2))
    assert path.read_bytes() == before
    assert ledger.append(change("a", 2)).sequence == 2


def test_words_of_people_survive(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path).append(change("a", 1, actor='Zoë "two\nlines"'))
    assert Ledger(path).page(model="", size=1, below=None)[0][0].actor == 'Zoë "two\nlines"'
