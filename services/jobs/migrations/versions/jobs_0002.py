"""What proves that a worker is of an attempt, and which runner works on it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds both; of attempts that run meanwhile the spool tells the rest."""
    op.add_column("jobs", sa.Column("token_digest", sa.String(64)))
    op.add_column("jobs", sa.Column("runner", sa.String(128)))
