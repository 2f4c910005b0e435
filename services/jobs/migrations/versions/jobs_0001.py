"""Jobs, their events and claimed version numbers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Makes the first tables."""
    op.create_table(
        "jobs",
        sa.Column("number", _NUMBER, primary_key=True, nullable=False),
        sa.Column("id", sa.String(63), nullable=False, unique=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("not_before", sa.BigInteger, nullable=False),
        sa.Column("start_time", sa.BigInteger),
        sa.Column("end_time", sa.BigInteger),
        sa.Column("error", sa.LargeBinary),
        sa.Column("result", sa.LargeBinary),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("folder", sa.String, nullable=False),
        sa.Column("worker_sequence", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.LargeBinary),
        sa.Column("worker_pid", sa.Integer),
        sa.Column("worker_mark", sa.String),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_by_state", "jobs", ["kind", "state", "number"])
    op.create_table(
        "events",
        sa.Column("job_id", sa.String(63), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("worker_sequence", sa.BigInteger),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("job_id", "attempt", "worker_sequence", name="events_once"),
    )
    op.create_table(
        "version_claims",
        sa.Column("model", sa.String(63), primary_key=True, nullable=False),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False, nullable=False),
        sa.Column("job_id", sa.String(63), nullable=False),
    )
