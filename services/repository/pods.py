"""Stages what a pod of a pool holds: each model on its own merit, so that a bad one keeps no other out.

A version that is missing, damaged or not certified is left out. A model of which nothing is left keeps an
empty place: Triton does not call itself ready then, so a rollout stops at this pod while the old pods go
on, and the models beside it answer. Knows disks and stores; knows nothing about Kubernetes.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from conch.v1 import models_pb2
from services import storage, stores
from services.errors import ServiceError
from services.repository import choosing, copies, layout, routed
from services.repository.choosing import Choice, Failures, Pool
from services.repository.copies import Say

_EMPTY_PLACE = b"""# No version of this model could be staged. Triton loads nothing and is not ready.
backend: "onnxruntime"
"""


@dataclass(frozen=True)
class StagedModel:
    """What a pod holds of a model: `versions`, as `runtime` serves them."""

    model: str
    runtime: str
    versions: tuple[int, ...]
    left_out: Failures = field(default_factory=dict)
    """Why versions that the routes name are not among them."""
    fallback: str = ""
    """Why the ONNX twin stands in for TensorRT plans; empty where it does not."""


def stage_pool(
    routes: models_pb2.Routes,
    name: str,
    pool: Pool,
    *,
    repository_uri: str,
    staged: Path,
    say: Say = copies.silent,
) -> list[StagedModel]:
    """Makes `staged` hold what the routes of the pool `name` ask for; returns each model's part, by name.

    May be called again after it was killed at any point: what was brought is kept. Raises
    BackendUnavailable if the store does not answer, NotReady if it refuses us or the disk is full,
    InvalidRequest if there can be no store at that URI.
    """
    storage.check_uri(repository_uri, field="repository")
    wanted: dict[str, list[int]] = defaultdict(list)
    for model, number in routed.versions_of(routes, pool=name):
        wanted[model].append(number)
    with stores.locked(staged), stores.translated(str(staged)):
        found = [
            _stage_model(model, numbers, pool, repository_uri, staged / model, say)
            for model, numbers in wanted.items()
        ]
        keys = {(one.model, number) for one in found for number in one.versions}
        copies.sweep(staged, keys, places=wanted)
    return found


def _stage_model(
    model: str, numbers: list[int], pool: Pool, repository_uri: str, folder: Path, say: Say
) -> StagedModel:
    spoiled: dict[tuple[int, str], ServiceError] = {}
    while True:
        choice = choosing.choose(model, numbers, pool, repository_uri=repository_uri, spoiled=spoiled)
        damaged = _bring(choice, folder, say)
        if not damaged:
            break
        spoiled |= {(number, choice.runtime): error for number, error in damaged.items()}
    if layout.is_model_name(model):
        _configure(folder, choice.configs if choice.picks else {layout.CONFIGS["onnxruntime"]: _EMPTY_PLACE})
    held = tuple(pick.version.version for pick in choice.picks)
    return StagedModel(model, choice.runtime, held, choice.failures, choice.fallback)


def _bring(choice: Choice, folder: Path, say: Say) -> Failures:
    """Returns what turned out to be damaged on the way here."""
    damaged: Failures = {}
    for pick in choice.picks:
        number = pick.version.version
        with choosing.gathered(damaged, number):
            copies.materialize(pick.version, folder / str(number), select=pick.files, say=say)
    return damaged


def _configure(folder: Path, configs: Mapping[str, bytes]) -> None:
    for path in layout.CONFIGS.values():
        if path not in configs:
            copies.discard(folder / path)
    for path, text in configs.items():
        copies.write_if_changed(folder / path, text)
