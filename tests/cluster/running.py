"""Services over an emulated cluster: settings, the template of their Jobs, and what they run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conch.v1 import training_pb2
from tests.cluster.api_server import ApiServer
from tests.cluster.job_controller import JobController
from tests.contract.jobs.running import Service

TEMPLATE = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: template
  labels: {app.kubernetes.io/instance: conch, team: language}
spec:
  ttlSecondsAfterFinished: 3600
  template:
    metadata: {labels: {app.kubernetes.io/instance: conch}}
    spec:
      priorityClassName: batch
      containers:
        - name: worker
          image: example.org/conch-trainer:1.0.0
          env: [{name: HF_HUB_OFFLINE, value: "1"}, {name: TOKENIZERS_PARALLELISM, value: "false"}]
          resources: {limits: {memory: 2Gi}}
"""


class Cluster:
    """An API server whose Jobs run here as processes."""

    def __init__(self, api: ApiServer, controller: JobController, folder: Path) -> None:
        self.api = api
        self.controller = controller
        self.kubelet = controller.kubelet
        self.templates = folder

    def settings(self) -> dict[str, str]:
        """Returns the environment of a service that runs its jobs here."""
        return {
            "CONCH_EXECUTOR": "kubernetes",
            "CONCH_KUBERNETES_URL": self.api.url,
            "CONCH_NAMESPACE": "default",
            "CONCH_JOB_TEMPLATES": str(self.templates),
            "CONCH_FLUSH_SECONDS": "60",
        }


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Runs a cluster whose templates of Jobs lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "default.yaml").write_text(TEMPLATE)
    with ApiServer() as api, JobController(api) as controller:
        yield Cluster(api, controller, folder)


class ClusterTrainer(Service):
    """A real trainer whose workers run in a cluster."""

    def __init__(self, place: Cluster, home: Path, **settings: str) -> None:
        self.cluster = place
        grace = {"CONCH_CANCEL_GRACE_SECONDS": "1"}
        super().__init__("trainer", home, **place.settings() | grace | settings)

    def end(self) -> None:
        """Ends the service; the cluster ends its workers."""
        if self.process.poll() is None:
            self.kill()

    def cancel(self, job_id: str) -> None:
        """Cancels a job."""
        self.training.CancelTrainingJob(training_pb2.CancelTrainingJobRequest(id=job_id))

    def delete(self, job_id: str) -> None:
        """Deletes a job that is over."""
        self.training.DeleteTrainingJob(training_pb2.DeleteTrainingJobRequest(id=job_id))
