"""Resumable checkpoints in the work folder: which are whole, which is the newest, which is the best.

Knows the files that transformers' Trainer writes; a kill may leave a folder half written or half
deleted, so a checkpoint counts only if every file of it is there and its state, written last, reads.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.errors import NotReady
from services.trainer import adaptation

NUM_KEPT = 2
"""The best and the newest; with one, a worse newest would leave nothing to resume from."""
# fp32 weights and AdamW's two moments.
_BYTES_PER_PARAMETER = 12
STATE = "trainer_state.json"
"""Written last."""
_FILES = ("optimizer.pt", "scheduler.pt", STATE)
_RNG_FILES = ("rng_state.pth", "rng_state_0.pth")
"""Of a process that trained alone, or of the first of several."""
_MODEL_FILES = (("config.json", "model.safetensors"), (adaptation.CONFIG, adaptation.WEIGHTS))
"""A whole model's, or those of what is trained beside it."""


@dataclass(frozen=True)
class ResumePoint:
    """A whole checkpoint of `step` optimizer steps; `best` is the best one so far, if any was evaluated."""

    folder: Path
    step: int
    best: Path | None
    finished: bool


def newest(folder: Path) -> ResumePoint | None:
    """Returns the newest whole checkpoint below `folder`, None if there is none. Deletes the broken ones."""
    points = []
    for path in folder.glob("checkpoint-*"):
        if (point := _read(path)) is not None:
            points.append(point)
        else:
            shutil.rmtree(path)
    return max(points, key=lambda p: p.step, default=None)


def check_room(folder: Path, *, num_parameters: int) -> None:
    """Makes `folder`. Raises NotReady(DISK_FULL) if the checkpoints kept and one more do not fit."""
    folder.mkdir(parents=True, exist_ok=True)
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = (NUM_KEPT + 1) * num_parameters * _BYTES_PER_PARAMETER - there
    if (free := shutil.disk_usage(folder).free) < needed:
        raise NotReady(
            f"checkpoints need {needed >> 20} MiB more in {folder}, {free >> 20} MiB are free",
            reason="DISK_FULL",
        )


def _read(path: Path) -> ResumePoint | None:
    if not any(_has(path, (*_FILES, *files)) for files in _MODEL_FILES) or not _has_any(path, _RNG_FILES):
        return None
    try:
        state = json.loads((path / STATE).read_text())
    except ValueError:
        return None
    # The folder may have moved since (another machine, another mount): names hold, paths do not.
    best = path.with_name(Path(state["best_model_checkpoint"] or path.name).name)
    return ResumePoint(
        folder=path,
        step=state["global_step"],
        best=best if state["best_model_checkpoint"] and best.is_dir() else None,
        finished=state["global_step"] >= state["max_steps"] or _stopped_early(state),
    )


def _has(path: Path, files: Sequence[str]) -> bool:
    return all((path / name).is_file() for name in files)


def _has_any(path: Path, files: Sequence[str]) -> bool:
    return any((path / name).is_file() for name in files)


def _stopped_early(state: dict[str, Any]) -> bool:
    stopping = state["stateful_callbacks"].get("EarlyStoppingCallback")
    if not stopping:
        return False
    patience = stopping["args"]["early_stopping_patience"]
    return bool(stopping["attributes"]["early_stopping_patience_counter"] >= patience)
