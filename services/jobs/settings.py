"""Settings that the trainer and the converter share, beside SharedSettings."""

from pydantic import Field

from services.settings import SharedSettings


class JobSettings(SharedSettings):
    """How jobs run on one machine."""

    max_concurrent_jobs: int = Field(default=1, ge=1)
    """Workers of one service that run at once; further jobs wait. CONCH_MAX_CONCURRENT_JOBS."""
    cancel_grace_seconds: float = Field(default=120.0, ge=0)
    """Time for a worker to wind down and save before it is killed. CONCH_CANCEL_GRACE_SECONDS."""
    retry_delay_seconds: float = Field(default=5.0, ge=0)
    """Wait before a job is tried again because something behind it did not answer; doubles each time.
    CONCH_RETRY_DELAY_SECONDS."""
    drain_seconds: float = Field(default=5.0, ge=0)
    """Time for running rpcs to end when the service stops. CONCH_DRAIN_SECONDS."""
