"""The trainer's settings."""

from services.jobs.settings import JobSettings


class TrainerSettings(JobSettings):
    """Read once in `__main__`."""

    trainer_address: str = "127.0.0.1:50052"
    """Where the trainer listens, port 0 = any free one. CONCH_TRAINER_ADDRESS."""
    trainer_worker_module: str = "services.trainer.run"
    """Module that is run as the worker process. CONCH_TRAINER_WORKER_MODULE."""
