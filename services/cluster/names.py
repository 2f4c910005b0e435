"""What the Kubernetes objects of a job are called, and the labels that they are found by.

Ids of jobs have 1 to 63 characters of [a-z0-9-]; names of Jobs have to leave room for what Kubernetes appends
(the index of a pod), and values of labels must not end with a dash.
"""

import hashlib
import re
from collections.abc import Mapping

from services.errors import InvalidRequest
from services.jobs.tables import Job

MANAGED_BY = "app.kubernetes.io/managed-by"
INSTANCE = "app.kubernetes.io/instance"
KIND, JOB, ATTEMPT = "conch/kind", "conch/job", "conch/attempt"
DIGEST = "conch/order-digest"
"""Annotation that tells one order from another of the same attempt's name."""
OWNER = "conch"
_LONGEST = 50
_PROFILE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def label_of(job_id: str) -> str:
    """Returns the value of the label `conch/job`: the id where it can be one, else a name made of it."""
    if len(job_id) <= _LONGEST and job_id[-1] != "-":
        return job_id
    digest = hashlib.sha256(job_id.encode()).hexdigest()[:8]
    return f"{job_id[: _LONGEST - 10]}-{digest}"


def job_name(job: Job) -> str:
    """Returns the name of the Kubernetes Job that runs the job's current attempt."""
    return f"{label_of(job.id)}-a{job.attempt}"


def service_name(name: str) -> str:
    """Returns the name of a Job's headless Service: those begin with a letter."""
    return name if name[0].isalpha() else f"n{name}"


def labels(job: Job) -> dict[str, str]:
    """Returns the labels of everything that belongs to the job's current attempt."""
    return {MANAGED_BY: OWNER, KIND: job.kind, JOB: label_of(job.id), ATTEMPT: str(job.attempt)}


def selector(wanted: Mapping[str, str]) -> str:
    """Returns the label selector of what bears all these labels."""
    return ",".join(f"{name}={value}" for name, value in sorted(wanted.items()))


def check_profile(profile: str) -> None:
    """Raises InvalidRequest unless `profile` may be the name of a template's file."""
    if not _PROFILE.fullmatch(profile):
        raise InvalidRequest.field("spec.profile", "must be 1 to 63 of [a-z0-9-]", reason="UNKNOWN_PROFILE")
