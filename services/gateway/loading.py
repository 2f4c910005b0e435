"""Brings versions from the repository into Triton: staged and certified, then loaded, each on its own merit.

Knows the staged repository and Triton's load calls; knows nothing about shares, warm-up or proof.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from conch.v1 import models_pb2
from services.errors import BackendUnavailable, NotReady, ServiceError
from services.gateway.settings import GatewaySettings
from services.gateway.triton import Triton
from services.repository import staging

Key = tuple[str, int]
Failures = dict[Key, ServiceError]


@dataclass(frozen=True)
class Loader:
    """Not for two tasks at once: whoever calls holds a lock."""

    settings: GatewaySettings
    triton: Triton

    async def load(
        self, keys: Sequence[Key], *, beside: Iterable[Key]
    ) -> tuple[list[models_pb2.Version], Failures]:
        """Stages and loads versions beside those that Triton holds already.

        Returns those of `keys` that Triton now holds, and why each of the others is not among them.
        """
        versions, failures = await self._stage(keys, frozenset(beside))
        loaded, refused = await self._load(versions)
        if refused and len(versions) > 1:
            # Triton refuses a model as a whole; one bad version must not keep the others out.
            loaded, refused = await self._load_singly(versions, frozenset(beside))
        return loaded, failures | refused

    async def settle(self, models: Iterable[str], keys: Iterable[Key]) -> None:
        """Takes away what is not in `keys`: staged files, and the versions of `models` in Triton.

        Raises ServiceError if Triton does not comply.
        """
        kept = frozenset(keys)
        await self._stage_all(kept)
        for model in sorted(models):
            if any(name == model for name, _ in kept):
                await self.triton.load(model)
            else:
                await self.triton.unload(model)

    async def _stage(
        self, keys: Sequence[Key], beside: frozenset[Key]
    ) -> tuple[list[models_pb2.Version], Failures]:
        failures: Failures = {}
        while left := [key for key in keys if key not in failures]:
            try:
                staged = await self._stage_all(beside | frozenset(left))
            except ServiceError as error:
                culprit = (error.metadata.get("model", ""), int(error.metadata.get("version", 0)))
                failures |= {key: error for key in left if culprit == key or culprit not in left}
            else:
                return [v for v in staged if (v.model, v.version) in left], failures
        return [], failures

    async def _stage_all(self, keys: frozenset[Key]) -> list[models_pb2.Version]:
        return await asyncio.to_thread(
            staging.stage,
            routes_of(keys),
            repository_uri=self.settings.resolved_repository_uri(),
            staged=self.settings.resolved_staged(),
            runtime=self.settings.runtime,
            allow_uncertified=self.settings.allow_uncertified,
        )

    async def _load(
        self, versions: Sequence[models_pb2.Version]
    ) -> tuple[list[models_pb2.Version], Failures]:
        refusals: dict[str, ServiceError] = {}
        for model in sorted({version.model for version in versions}):
            try:
                await self._load_model(model)
            except ServiceError as error:
                refusals[model] = error
        loaded, failures = [], {}
        for version in versions:
            if await self.triton.model_ready(version.model, version.version):
                loaded.append(version)
            else:
                refusal = refusals.get(version.model)
                failures[version.model, version.version] = refusal or await self._silence(version.model)
        return loaded, failures

    async def _load_model(self, model: str) -> None:
        try:
            await self.triton.load(model)
        except NotReady as refusal:
            # A Triton that is about to end refuses, too.
            if await self.triton.ready():
                raise
            raise BackendUnavailable("Triton does not answer", reason="TRITON_UNAVAILABLE") from refusal

    async def _silence(self, model: str) -> ServiceError:
        """Returns why a version is not there though Triton took the load: left out, or lost since."""
        try:
            index = (await self.triton.index()).models
        except ServiceError as error:
            return error
        if any(entry.name == model and entry.state == "READY" for entry in index):
            return NotReady("Triton leaves it out: see version_policy in its config", reason="LOAD_REFUSED")
        return BackendUnavailable("Triton lost it while it loaded", reason="TRITON_UNAVAILABLE")

    async def _load_singly(
        self, versions: Sequence[models_pb2.Version], beside: frozenset[Key]
    ) -> tuple[list[models_pb2.Version], Failures]:
        loaded: list[models_pb2.Version] = []
        failures: Failures = {}
        for version in versions:
            held = beside | {(v.model, v.version) for v in loaded}
            more, refused = await self.load([(version.model, version.version)], beside=held)
            loaded += more
            failures |= refused
        return loaded, failures


def routes_of(keys: Iterable[Key]) -> models_pb2.Routes:
    """Returns routes that name exactly `keys`."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for model, version in sorted(keys):
        numbers[model].append(version)
    return models_pb2.Routes(
        routes=[
            models_pb2.Route(
                model=model, versions=[models_pb2.WeightedVersion(version=n, weight=1) for n in found]
            )
            for model, found in numbers.items()
        ]
    )
