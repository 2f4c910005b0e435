"""What torchrun tells each process that it starts, in variables of its own names.

Knows torch.distributed's environment variables; a process that nobody started so is alone.
"""

from pydantic_settings import BaseSettings, SettingsConfigDict


class TorchrunSettings(BaseSettings):
    """Read as they stand; see https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables."""

    model_config = SettingsConfigDict(frozen=True)

    rank: int = 0
    """Which of the processes this is. RANK."""
    world_size: int = 1
    """How many train together. WORLD_SIZE."""
    master_addr: str = "127.0.0.1"
    """Host of the first one. MASTER_ADDR."""
    master_port: int = 29500
    """Its port. MASTER_PORT."""
