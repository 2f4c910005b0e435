"""`python -m services.trainer`: the training service."""

import sys
from functools import partial

import grpc.aio
import uvloop

from conch.v1 import training_pb2, training_pb2_grpc, worker_pb2
from services import logs, storage
from services.cluster.choice import choose_executor
from services.jobs.jobs import Jobs
from services.jobs.kinds import Kind
from services.jobs.placement import Placement
from services.jobs.serving import serve
from services.jobs.tables import Job
from services.settings import read
from services.trainer.servicer import KIND, TrainingServicer
from services.trainer.settings import TrainerSettings

_SERVICE = training_pb2.DESCRIPTOR.services_by_name["TrainingService"].full_name


def main() -> int:
    """Serves until SIGTERM; returns the process's exit code."""
    settings = read(TrainerSettings, program="trainer")
    logs.configure(service="trainer", level=settings.log_level)
    artifacts_uri = settings.resolved_artifacts_uri()

    def order(job: Job) -> worker_pb2.WorkOrder:
        return worker_pb2.WorkOrder(
            training=training_pb2.TrainingSpec.FromString(job.spec),
            output_uri=storage.join(artifacts_uri, "training", job.id),
        )

    kind = Kind(KIND, settings.trainer_worker_module, order)
    address = settings.trainer_address
    return uvloop.run(
        serve(
            kind,
            service_name=_SERVICE,
            address=address,
            settings=settings,
            make_executor=choose_executor,
            register=partial(_register, Placement.of(settings)),
        )
    )


def _register(placement: Placement, jobs: Jobs, server: grpc.aio.Server) -> None:
    training_pb2_grpc.add_TrainingServiceServicer_to_server(TrainingServicer(jobs, placement), server)


if __name__ == "__main__":
    sys.exit(main())
