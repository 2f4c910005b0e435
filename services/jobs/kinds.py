"""What makes one kind of job different from another for those who queue and run it."""

from collections.abc import Callable
from dataclasses import dataclass

from conch.v1 import worker_pb2
from services.jobs.tables import Job


@dataclass(frozen=True)
class Kind:
    """One kind of job: its name in the store, the module that works on it and what that is told."""

    name: str
    worker_module: str
    """Run as `python -m MODULE ORDER.JSON`."""
    order: Callable[[Job], worker_pb2.WorkOrder]
    """Returns an order with spec, output_uri and version set; the rest is filled in where it is run."""
