"""Turns rows of the jobs table into the messages that both job services share."""

from google.protobuf import timestamp_pb2
from google.rpc import status_pb2

from conch.v1 import job_pb2
from services.jobs.tables import Job


def status(job: Job) -> job_pb2.JobStatus:
    """Returns the job's life as callers see it."""
    return job_pb2.JobStatus(
        state=job_pb2.JobStatus.State.ValueType(job.state),
        create_time=_timestamp(job.create_time),
        start_time=_timestamp(job.start_time),
        end_time=_timestamp(job.end_time),
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        error=status_pb2.Status.FromString(job.error) if job.error is not None else None,
        last_sequence=job.last_sequence,
        cancel_requested=job.cancel_requested,
    )


def _timestamp(microseconds: int | None) -> timestamp_pb2.Timestamp | None:
    if microseconds is None:
        return None
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromMicroseconds(microseconds)
    return timestamp
