"""Finds what would keep routes from being served, before any pod is made for them.

Knows routes, pools and what is published; asks no Triton and brings no file.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from conch.v1 import models_pb2
from services import storage
from services.errors import NotFound, ServiceError
from services.repository import choosing, routed, versions
from services.repository.choosing import Choice, Failures, Pick, Pool
from services.repository.plans import Device
from services.repository.settings import PoolFacts
from services.tasks.forms import OWN_BACKENDS


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in a sentence."""

    message: str
    reason: str
    is_missing: bool = False
    """Whether there is no such version, rather than a bad one."""


@dataclass(frozen=True)
class Findings:
    """What was found of one route: `problems`, and how its model would be served in a sentence each."""

    problems: tuple[Problem, ...] = ()
    remarks: tuple[str, ...] = ()
    versions: tuple[int, ...] = field(default=())


def examine(
    route: models_pb2.Route,
    pools: Mapping[str, PoolFacts],
    *,
    repository_uri: str,
    allow_uncertified: frozenset[str] = frozenset(),
) -> Findings:
    """Returns what is found of one route. Raises NotReady or BackendUnavailable if the store is at fault."""
    name = route.pool or (next(iter(pools)) if len(pools) == 1 else "")
    if name not in pools:
        return Findings(problems=(_no_pool(route, pools),))
    numbers, facts = routed.numbers_of(route), pools[name]
    devices = _devices(route.model, numbers, facts, repository_uri)
    choices = [
        choosing.choose(
            route.model,
            numbers,
            Pool(facts.runtime, device, allow_uncertified),
            repository_uri=repository_uri,
        )
        for device in devices
    ]
    problems = [*_refused(numbers, choices), *_incomplete(choices)]
    if not facts.own_backends:
        problems += _without_backend(name, choices)
    remarks = (
        [f"{name}: {line}" for line in _remarks(route.model, devices, choices)]
        if facts.runtime == "tensorrt"
        else ()
    )
    return Findings(tuple(problems), tuple(remarks), tuple(numbers))


def _no_pool(route: models_pb2.Route, pools: Mapping[str, PoolFacts]) -> Problem:
    known = ", ".join(sorted(pools)) or "none"
    wanted = f'there is no pool "{route.pool}"' if route.pool else "its route names no pool"
    return Problem(f"{route.model}: {wanted}; the pools are: {known}", "POOL_UNKNOWN")


def _devices(model: str, numbers: Iterable[int], facts: PoolFacts, repository_uri: str) -> list[Device]:
    """Returns the devices that the pool's pods may find: each that a plan was built for, or none such."""
    said = Device(facts.compute_capability, facts.tensorrt_version)
    if facts.runtime != "tensorrt" or said.compute_capability or not said.tensorrt_version:
        return [said]
    unreadable: Failures = {}
    devices = []
    for number in numbers:
        with choosing.gathered(unreadable, number):
            manifest = versions.read_version(repository_uri, model, number).manifest
            devices += [Device(plan.compute_capability, plan.tensorrt_version) for plan in manifest.plans]
    same = [device for device in devices if device.tensorrt_version == said.tensorrt_version]
    return [*dict.fromkeys(same), said]


def _refused(numbers: Iterable[int], choices: list[Choice]) -> list[Problem]:
    """Returns the versions that none of the pool's pods could stage."""
    return [
        _problem(choices[-1].failures[number])
        for number in numbers
        if all(number in choice.failures for choice in choices)
    ]


def _incomplete(choices: list[Choice]) -> list[Problem]:
    """Returns what the store lacks of versions that could be staged otherwise."""
    found = [_lacking(pick) for choice in choices for pick in choice.picks]
    return list(dict.fromkeys(problem for problem in found if problem))


def _lacking(pick: Pick) -> Problem | None:
    manifest, _ = storage.read_manifest(pick.version.uri)
    there = set(storage.list_files(pick.version.uri))
    missing = sorted(file.path for file in pick.files(manifest).values() if file.path not in there)
    if not missing:
        return None
    label = f"{pick.version.model}@{pick.version.version}"
    return Problem(f"{label} is incomplete: {', '.join(missing)} is missing", "ARTIFACT_DAMAGED")


def _without_backend(pool: str, choices: list[Choice]) -> list[Problem]:
    """Returns the versions that need a backend which NVIDIA's image has not."""
    lacking = {
        f"{pick.version.model}@{pick.version.version} needs the backend {pick.form.backend}": None
        for choice in choices
        for pick in choice.picks
        if pick.form.backend in OWN_BACKENDS
    }
    return [Problem(f"{what}, which the pool {pool} has not", "BACKEND_MISSING") for what in lacking]


def _problem(error: ServiceError) -> Problem:
    return Problem(error.message, error.reason, isinstance(error, NotFound))


def _remarks(model: str, devices: list[Device], choices: list[Choice]) -> Iterator[str]:
    """Yields what serves the model on each kind of device that its plans are for, and what elsewhere."""
    for device, choice in zip(devices, choices, strict=True):
        numbers = ", ".join(str(pick.version.version) for pick in choice.picks)
        where = f" on {device}" if device.compute_capability else " elsewhere" if len(devices) > 1 else ""
        yield f"{model} {numbers} by {choice.runtime}{where}" if numbers else f"{model} not at all{where}"
