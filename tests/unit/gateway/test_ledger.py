"""The ledger's file: sequence without gap, across restarts and crashes; pages, newest first."""

import errno
import os
from pathlib import Path

import pytest

from conch.v1 import models_pb2
from services.errors import NotReady
from services.gateway.ledger import LedgerFile
from services.routes import Revision, Signed


def route(model: str, version: int) -> models_pb2.Route:
    versions = [models_pb2.WeightedVersion(version=version, weight=1)]
    return models_pb2.Route(model=model, versions=versions)


async def append(ledger: LedgerFile, model: str, version: int, actor: str = "anna") -> models_pb2.RouteChange:
    """Notes a change as SetRoute does, and returns its line."""
    change = models_pb2.RouteChange(actor=actor, after=route(model, version))
    change.time.GetCurrentTime()
    named = [models_pb2.Route(model=m) for m in ("a", "b", model)]  # what is not named was taken out
    revision = Revision(models_pb2.Routes(routes=named), actor="file", signed=(Signed(change, mark=0),))
    await ledger.note(revision, [])
    return await ledger.entry(change)


async def sequences(ledger: LedgerFile, model: str = "") -> list[int]:
    return [c.sequence for c in (await ledger.page(model=model, size=100, below=None))[0]]


async def test_lines_are_numbered_without_gap_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "home" / "ledger.jsonl"
    ledger = LedgerFile(path)
    assert [(await append(ledger, "a", n)).sequence for n in (1, 2, 3)] == [1, 2, 3]
    again = LedgerFile(path)
    assert await sequences(again) == [3, 2, 1]
    assert (await append(again, "a", 4)).before == route("a", 3)
    assert len(path.read_text().splitlines()) == 4


async def test_a_line_torn_by_a_crash_is_cut_off_and_its_number_used_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    await append(LedgerFile(path), "a", 1)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    ledger = LedgerFile(path)
    assert path.read_bytes() == whole
    assert (await append(ledger, "a", 2)).sequence == 2
    assert await sequences(LedgerFile(path)) == [2, 1]


async def test_a_torn_end_inside_a_character_is_cut_off_too(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    await append(LedgerFile(path), "a", 1)
    with path.open("ab") as file:
        file.write('{"actor": "é'.encode()[:-1])
    assert await sequences(LedgerFile(path)) == [1]


async def test_a_line_damaged_by_hand_is_passed_over_and_numbers_go_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = LedgerFile(path)
    for version in (1, 2, 3):
        await append(ledger, "a", version)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "oops\n" + lines[2])
    again = LedgerFile(path)
    assert await sequences(again) == [3, 1]
    assert (await append(again, "a", 4)).sequence == 4


async def test_pages_go_from_the_newest_to_the_oldest(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger.jsonl")
    for version in range(1, 6):
        await append(ledger, "a", version)
    seen, below = [], None
    while True:
        page, below = await ledger.page(model="", size=2, below=below)
        seen += [c.sequence for c in page]
        if below is None:
            break
    assert seen == [5, 4, 3, 2, 1]


async def test_a_page_that_ends_with_the_ledger_is_the_last(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger.jsonl")
    for version in (1, 2):
        await append(ledger, "a", version)
    assert (await ledger.page(model="", size=2, below=None))[1] is None


async def test_one_model_is_picked_out(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger.jsonl")
    for model, version in (("a", 1), ("b", 1), ("a", 2)):
        await append(ledger, model, version)
    assert await sequences(ledger, "a") == [3, 1]
    assert await sequences(ledger, "c") == []


async def test_an_edit_that_holds_gets_a_line_once_and_what_left_the_file_one_without_versions(
    tmp_path: Path,
) -> None:
    ledger = LedgerFile(tmp_path / "ledger.jsonl")
    both = models_pb2.Routes(routes=[route("a", 1), route("b", 1)])
    for _ in range(2):
        await ledger.note(Revision(both, actor="file"), both.routes)
    one = models_pb2.Routes(routes=[route("a", 2)])
    for held in ([], one.routes, one.routes):
        await ledger.note(Revision(one, actor="file"), held)
    newest = (await ledger.page(model="", size=2, below=None))[0]
    assert [(c.sequence, c.after.model, len(c.after.versions)) for c in newest] == [(4, "a", 1), (3, "b", 0)]
    assert newest[0].before == route("a", 1)


async def test_a_full_disk_leaves_the_ledger_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = LedgerFile(path)
    await append(ledger, "a", 1)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(NotReady, match="No space left"):
            await append(ledger, "a", 2)
    assert path.read_bytes() == before
    assert (await append(ledger, "a", 2)).sequence == 2


async def test_words_of_people_survive(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    await append(LedgerFile(path), "a", 1, actor='Zoë "two\nlines"')
    page, _ = await LedgerFile(path).page(model="", size=1, below=None)
    assert page[0].actor == 'Zoë "two\nlines"'
