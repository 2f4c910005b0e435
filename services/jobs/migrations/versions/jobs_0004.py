"""Which term of leadership holds, so that a leader of an earlier one changes nothing any more."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Nobody leads yet."""
    op.create_table(
        "leaders",
        sa.Column("kind", sa.String(16), primary_key=True, nullable=False),
        sa.Column("term", sa.BigInteger, nullable=False),
    )
