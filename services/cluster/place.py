"""Where a worker in a pod finds its folder, its service and what outlives its pod."""

from dataclasses import dataclass

from conch.v1 import worker_pb2
from services import storage
from services.cluster.manifests import WORK_FOLDER


@dataclass(frozen=True)
class Place:
    """What an executor puts into every order."""

    module: str
    report_to: str
    artifacts_uri: str
    grace_seconds: float
    flush_seconds: float

    def filled(self, order: worker_pb2.WorkOrder) -> worker_pb2.WorkOrder:
        """Returns the order with the places of a pod."""
        filled = worker_pb2.WorkOrder()
        filled.CopyFrom(order)
        filled.report_to, filled.work_dir = self.report_to, WORK_FOLDER
        filled.work_uri = self.work_uri(order.job_id)
        filled.flush_timeout.FromMilliseconds(round(self.flush_seconds * 1000))
        return filled

    def work_uri(self, job_id: str) -> str:
        """Returns where the job's folder is kept between pods."""
        return storage.join(self.artifacts_uri, "work", job_id)
