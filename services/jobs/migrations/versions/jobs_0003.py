"""Attempts have a name wherever they run; where their folder lies is the executor's own business."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Keeps the pids of workers that run meanwhile."""
    op.add_column("jobs", sa.Column("worker_name", sa.String(255)))
    op.execute("UPDATE jobs SET worker_name = CAST(worker_pid AS VARCHAR(255))")
    op.drop_column("jobs", "worker_pid")
    op.drop_column("jobs", "folder")
