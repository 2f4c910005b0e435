"""What Alembic runs: migrates over the connection, and in the transaction, of services.jobs.database."""

from alembic import context

from services.jobs.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
