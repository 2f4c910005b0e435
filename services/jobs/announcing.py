"""Tells the other replicas of a service, through PostgreSQL, that a job changed.

Knows what goes over the wire; knows nothing about who listens. Heard only once the transaction is
committed. SQLite has no such thing: there the replicas look by themselves.
"""

import secrets
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from services.jobs.tables import Job

CHANNEL = "conch_jobs"
_SELF = secrets.token_hex(4)
_TOLD, _WISHED = "told", "wished"


@dataclass(frozen=True)
class Announcement:
    """What another replica did: `wished` if the leader has to look at it."""

    kind: str
    job_id: str
    wished: bool


def announce(session: Session, job: Job, *, wished: bool = False) -> None:
    """Says, in the transaction, that the job changed; `wished` if the leader has to look at it."""
    if session.get_bind().dialect.name == "postgresql":
        payload = " ".join((_SELF, _WISHED if wished else _TOLD, job.kind, job.id))
        session.execute(
            text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANNEL, "payload": payload}
        )


def parse(payload: str) -> Announcement | None:
    """Returns what another replica announced; None if it was this one, or a release that speaks otherwise."""
    words = payload.split(" ")
    if len(words) != 4 or words[0] == _SELF:
        return None
    return Announcement(kind=words[2], job_id=words[3], wished=words[1] == _WISHED)
