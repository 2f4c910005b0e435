"""`python -m services.converter`: the conversion service."""

import sys
from functools import partial

import grpc.aio
import uvloop

from conch.v1 import conversion_pb2, conversion_pb2_grpc, worker_pb2
from services import logs
from services.cluster.choice import choose_executor
from services.converter.servicer import KIND, ConversionServicer
from services.converter.settings import ConverterSettings
from services.jobs.jobs import Jobs
from services.jobs.kinds import Kind
from services.jobs.placement import Placement
from services.jobs.serving import serve
from services.jobs.tables import Job
from services.settings import read

_SERVICE = conversion_pb2.DESCRIPTOR.services_by_name["ConversionService"].full_name


def main() -> int:
    """Serves until SIGTERM; returns the process's exit code."""
    settings = read(ConverterSettings, program="converter")
    logs.configure(service="converter", level=settings.log_level)
    repository_uri = settings.resolved_repository_uri()

    def order(job: Job) -> worker_pb2.WorkOrder:
        spec = conversion_pb2.ConversionSpec.FromString(job.spec)
        return worker_pb2.WorkOrder(conversion=spec, output_uri=repository_uri, version=job.version)

    kind = Kind(KIND, settings.converter_worker_module, order)
    register = partial(_register, repository_uri, Placement.of(settings))
    address = settings.converter_address
    return uvloop.run(
        serve(
            kind,
            service_name=_SERVICE,
            address=address,
            settings=settings,
            make_executor=choose_executor,
            register=register,
        )
    )


def _register(repository_uri: str, placement: Placement, jobs: Jobs, server: grpc.aio.Server) -> None:
    servicer = ConversionServicer(jobs, placement, repository_uri=repository_uri)
    conversion_pb2_grpc.add_ConversionServiceServicer_to_server(servicer, server)


if __name__ == "__main__":
    sys.exit(main())
