"""The tables of the jobs database. Knows columns; the SQL that makes them stands in `migrations`.

Times are microseconds since 1970-01-01 UTC, states are the numbers of JobStatus.State, and messages
are their serialized bytes, so that SQLite and PostgreSQL hold exactly the same.
"""

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite counts up by itself only in a column that is called INTEGER.
_Number = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Holds the metadata of all tables."""


class Job(Base):
    """One job. Instances that the store hands out are detached: plain values of one moment."""

    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_by_state", "kind", "state", "number"), {"sqlite_autoincrement": True})

    number: Mapped[int] = mapped_column(_Number, primary_key=True)
    """Order of creation: the queue goes up, lists go down."""
    id: Mapped[str] = mapped_column(String(63), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    """"training" or "conversion"."""
    spec: Mapped[bytes] = mapped_column(LargeBinary)
    state: Mapped[int]
    attempt: Mapped[int]
    max_attempts: Mapped[int]
    create_time: Mapped[int] = mapped_column(BigInteger)
    not_before: Mapped[int] = mapped_column(BigInteger)
    """When the next attempt may begin."""
    start_time: Mapped[int | None] = mapped_column(BigInteger)
    end_time: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[bytes | None] = mapped_column(LargeBinary)
    """google.rpc.Status of a job that FAILED."""
    result: Mapped[bytes | None] = mapped_column(LargeBinary)
    """TrainingResult or ConversionResult of a job that SUCCEEDED."""
    last_sequence: Mapped[int] = mapped_column(BigInteger)
    cancel_requested: Mapped[bool]
    version: Mapped[int] = mapped_column(BigInteger)
    """Version number claimed for a conversion, else 0."""
    worker_sequence: Mapped[int] = mapped_column(BigInteger)
    """Reports of the current attempt that are on disk here."""
    outcome: Mapped[bytes | None] = mapped_column(LargeBinary)
    """What the current attempt's worker said of its end; counts once the worker is gone."""
    token_digest: Mapped[str | None] = mapped_column(String(64))
    """sha256 of the current attempt's token, in hex digits; the token itself only the worker has."""
    runner: Mapped[str | None] = mapped_column(String(128))
    """The process that works on the current attempt, by its own word."""
    worker_name: Mapped[str | None] = mapped_column(String(255))
    """What the executor calls the current attempt: a pid, or the name of a Kubernetes Job."""
    worker_mark: Mapped[str | None] = mapped_column(String)
    """What tells it from a later one of the same name."""


class Event(Base):
    """One line of a job's log; never changed."""

    __tablename__ = "events"
    # What the service itself notes has no worker_sequence, and NULLs are never equal.
    __table_args__ = (UniqueConstraint("job_id", "attempt", "worker_sequence", name="events_once"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    worker_sequence: Mapped[int | None] = mapped_column(BigInteger)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    """The whole JobEvent."""


class VersionClaim(Base):
    """A version number that is taken, whatever became of the job: numbers are never used twice."""

    __tablename__ = "version_claims"

    model: Mapped[str] = mapped_column(String(63), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    job_id: Mapped[str] = mapped_column(String(63))


class Leader(Base):
    """Which term of leadership holds among the replicas that run one kind of job."""

    __tablename__ = "leaders"

    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    term: Mapped[int] = mapped_column(BigInteger)
    """Counts up: of two replicas that believe to lead, the higher one does."""
