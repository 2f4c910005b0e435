"""What Prometheus reads of a job service: jobs by state, how long the oldest one waits, and who leads.

Knows names and labels of the series; asks the database anew at each scrape, so every replica shows the same.
"""

from collections.abc import Callable, Iterator

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from conch.v1 import job_pb2
from services.errors import BackendUnavailable
from services.jobs.store import Store

log = structlog.get_logger(__name__)


class JobSeries(Collector):
    """The series of one kind of job."""

    def __init__(self, kind: str, store: Store, leads: Callable[[], bool]) -> None:
        self._kind = kind
        self._store = store
        self._leads = leads

    def registry(self) -> CollectorRegistry:
        """Returns a registry that holds these series alone."""
        registry = CollectorRegistry()
        registry.register(self)
        return registry

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Gives no series: asked at registration, when the database need not be asked."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Gives the values of this moment; without a database only who leads."""
        leader = GaugeMetricFamily(
            "conch_scheduler_leader", "1 on the replica that runs the scheduler", labels=["kind"]
        )
        leader.add_metric([self._kind], float(self._leads()))
        yield leader
        try:
            yield from self._stored()
        except BackendUnavailable as error:
            log.warning("metrics.missed", problem=error.message)

    def _stored(self) -> Iterator[GaugeMetricFamily]:
        counted, waiting = self._store.count(self._kind), self._store.oldest_pending_seconds(self._kind)
        jobs = GaugeMetricFamily("conch_jobs", "Jobs by state", labels=["kind", "state"])
        for name, state in job_pb2.JobStatus.State.items():
            if state != job_pb2.JobStatus.STATE_UNSPECIFIED:
                label = name.removeprefix("STATE_").lower()
                jobs.add_metric([self._kind, label], counted.get(state, 0))
        yield jobs
        oldest = GaugeMetricFamily(
            "conch_oldest_pending_job_seconds",
            "How long the job has waited that could have begun first, 0 if none waits",
            labels=["kind"],
        )
        oldest.add_metric([self._kind], waiting)
        yield oldest
