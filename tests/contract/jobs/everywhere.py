"""Every place where workers can run: the tests of this folder are held over each.

To hold them over another executor, add a line to PLACES: a name, and a context manager that is given an empty
folder and gives a Place whose `settings` make a service use that executor. Its workers have to be processes
of this machine, or `pid` has nothing to return.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.cluster.running import Cluster, cluster
from tests.contract.jobs.places import Local, Place


class Kubernetes:
    """An emulated cluster, where a worker's name is its Job's."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def settings(self) -> dict[str, str]:
        return self._cluster.settings()

    def pid(self, worker: str) -> int:
        job = self._cluster.api.objects.get("Job", worker)["metadata"]["labels"]["conch/job"]
        pods = self._cluster.kubelet.pods(job)
        return self._cluster.kubelet.pid([pod for pod in pods if pod.startswith(worker)][-1])

    def end(self, workers: Iterable[str]) -> None:
        """Does nothing: they end with the cluster."""


@contextmanager
def kubernetes(folder: Path) -> Iterator[Place]:
    """Gives a cluster of the test's own."""
    with cluster(folder) as running:
        yield Kubernetes(running)


@contextmanager
def local(_folder: Path) -> Iterator[Place]:
    """Gives this machine."""
    yield Local()


PLACES: dict[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "local": local,
    "kubernetes": kubernetes,
}
