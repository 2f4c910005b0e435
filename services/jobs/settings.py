"""Settings that the trainer and the converter share, beside SharedSettings."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from services.settings import SharedSettings


class JobSettings(SharedSettings):
    """How and where jobs run; the defaults suit one machine."""

    max_concurrent_jobs: int = Field(default=1, ge=1)
    """Workers of one service that run at once; further jobs wait. CONCH_MAX_CONCURRENT_JOBS."""
    cancel_grace_seconds: float = Field(default=120.0, ge=0)
    """Time for a worker to wind down and save before it is killed. CONCH_CANCEL_GRACE_SECONDS."""
    retry_delay_seconds: float = Field(default=5.0, ge=0)
    """Wait before a job is tried again because something behind it did not answer; doubles each time.
    CONCH_RETRY_DELAY_SECONDS."""
    drain_seconds: float = Field(default=5.0, ge=0)
    """Time for running rpcs to end when the service stops. CONCH_DRAIN_SECONDS."""
    metrics_address: str = ""
    """Where Prometheus reads /metrics, host:port; empty = nowhere. CONCH_METRICS_ADDRESS."""

    executor: Literal["local", "kubernetes"] = "local"
    """Where workers run: as processes beside the service, or as Kubernetes Jobs. CONCH_EXECUTOR."""
    report_to: str = ""
    """host:port where workers reach this service, all its replicas; empty = where it listens.
    CONCH_REPORT_TO."""
    job_templates: Path | None = Field(default=None, validate_default=True)
    """Folder of `<profile>.yaml`, each a batch/v1 Job whose gaps the executor fills. Required for
    kubernetes. CONCH_JOB_TEMPLATES."""
    default_profile: str = "default"
    """Template of jobs that name no profile. CONCH_DEFAULT_PROFILE."""
    namespace: str = ""
    """Kubernetes namespace of jobs; empty = the one that the service runs in. CONCH_NAMESPACE."""
    flush_seconds: float = Field(default=300.0, ge=0)
    """How long a worker in a cluster may take at its end to deliver its reports. CONCH_FLUSH_SECONDS."""

    @field_validator("job_templates")
    @classmethod
    def _required_in_a_cluster(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        if folder is None and info.data.get("executor") == "kubernetes":
            raise ValueError("is required where CONCH_EXECUTOR is kubernetes")
        return folder
