"""Tells of workers that wait: for a machine, or for an image that cannot be pulled. Waiting is no failure.

Knows pods; knows nothing about attempts but the names of their Jobs.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

import structlog

from services.cluster import names
from services.cluster.client import Cluster
from services.cluster.deaths import obstacle
from services.cluster.objects import PODS, Object
from services.errors import ServiceError

log = structlog.get_logger(__name__)

# A cluster that adds a machine for a pod takes some minutes for it.
PATIENCE_SECONDS = 180.0
_LOOK_SECONDS = 30.0


@dataclass(frozen=True)
class Obstacle:
    """Why a worker does not start."""

    job: str
    """Name of its Kubernetes Job."""
    reason: str
    message: str


Tell = Callable[[Obstacle], None]


class Obstacles:
    """Looks at the pods with these labels now and then; tells of each obstacle of a pod once."""

    def __init__(
        self,
        cluster: Cluster,
        labels: Mapping[str, str],
        tell: Tell,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._cluster = cluster
        self._labels = names.selector(labels)
        self._tell = tell
        self._patience_seconds = patience_seconds
        self._look_seconds = look_seconds
        self._told: set[tuple[str, str]] = set()

    async def run(self) -> NoReturn:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(self._look_seconds)
            try:
                await self._look()
            except ServiceError as error:
                log.info("obstacles.unseen", problem=error.message)

    async def _look(self) -> None:
        pods, _ = await self._cluster.list(PODS, labels=self._labels, fields="status.phase=Pending")
        present = {pod["metadata"]["name"] for pod in pods}
        self._told = {told for told in self._told if told[0] in present}
        for pod in pods:
            found = obstacle(pod)
            if found is not None and _waited_seconds(pod) >= self._patience_seconds:
                self._tell_once(pod, *found)

    def _tell_once(self, pod: Object, reason: str, message: str) -> None:
        metadata = pod["metadata"]
        if (metadata["name"], reason) in self._told:
            return
        self._told.add((metadata["name"], reason))
        minutes = round(_waited_seconds(pod) / 60)
        job = metadata["labels"]["batch.kubernetes.io/job-name"]
        log.warning("worker.hindered", job=job, reason=reason, problem=message)
        self._tell(Obstacle(job, reason, f"the worker waits for {minutes} min by now: {message}"))


def _waited_seconds(pod: Object) -> float:
    created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    return (datetime.now(UTC) - created).total_seconds()
