"""A checkpoint counts only if it is whole: what a kill left half written or half deleted is passed over."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.errors import NotReady
from services.trainer import resume


def test_checkpoints_that_would_not_fit_are_refused_before_training(tmp_path: Path) -> None:
    resume.check_room(tmp_path / "made", num_parameters=1000)
    with pytest.raises(NotReady, match="MiB are free") as caught:
        resume.check_room(tmp_path / "made", num_parameters=10**15)
    assert caught.value.reason == "DISK_FULL"


FILES = ("config.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")


def checkpoint(
    folder: Path, step: int, *, best: int | None = None, patience_used: int = 0, **state: Any
) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    for name in FILES:
        (path / name).write_bytes(b"x")
    stopping = {
        "args": {"early_stopping_patience": 3},
        "attributes": {"early_stopping_patience_counter": patience_used},
    }
    full = {
        "global_step": step,
        "max_steps": 100,
        "best_model_checkpoint": f"/elsewhere/checkpoint-{best}" if best else None,
        "stateful_callbacks": {"EarlyStoppingCallback": stopping},
    }
    (path / "trainer_state.json").write_text(json.dumps(full | state))
    return path


def test_nothing_to_resume_from_is_no_error(tmp_path: Path) -> None:
    assert resume.newest(tmp_path / "never-made") is None


def test_the_newest_whole_checkpoint_is_found_by_its_step(tmp_path: Path) -> None:
    checkpoint(tmp_path, 9, best=9)
    newest = checkpoint(tmp_path, 10, best=9)
    point = resume.newest(tmp_path)
    assert point == resume.ResumePoint(newest, 10, best=tmp_path / "checkpoint-9", finished=False)


@pytest.mark.parametrize("missing", [*FILES, "trainer_state.json"])
def test_a_checkpoint_that_lacks_a_file_is_passed_over_and_deleted(tmp_path: Path, missing: str) -> None:
    checkpoint(tmp_path, 10)
    (checkpoint(tmp_path, 20) / missing).unlink()
    point = resume.newest(tmp_path)
    assert point is not None
    assert point.step == 10
    assert not (tmp_path / "checkpoint-20").exists()


def test_a_state_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    checkpoint(tmp_path, 10)
    state = checkpoint(tmp_path, 20) / "trainer_state.json"
    state.write_text(state.read_text()[:30])
    point = resume.newest(tmp_path)
    assert point is not None
    assert point.step == 10


def test_a_best_checkpoint_that_is_gone_is_not_named(tmp_path: Path) -> None:
    checkpoint(tmp_path, 20, best=10)
    point = resume.newest(tmp_path)
    assert point is not None
    assert point.best is None


@pytest.mark.parametrize(
    ("step", "patience_used", "finished"), [(50, 2, False), (100, 0, True), (50, 3, True)]
)
def test_a_run_that_was_through_is_known_by_its_state(
    tmp_path: Path, step: int, patience_used: int, finished: bool
) -> None:
    checkpoint(tmp_path, step, patience_used=patience_used)
    point = resume.newest(tmp_path)
    assert point is not None
    assert point.finished is finished
