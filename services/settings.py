"""Settings that every service shares: environment variables CONCH_*, read once in `__main__`.

A service's own settings subclass `SharedSettings`. Nothing else in Conch reads the environment.
"""

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class SharedSettings(BaseSettings):
    """Where things lie; the defaults suit one machine."""

    model_config = SettingsConfigDict(env_prefix="CONCH_", frozen=True)

    home: Path = Path(".conch")
    """Database, artifacts, logs, job folders and the staged repository. CONCH_HOME."""
    database_url: SecretStr | None = None
    """SQLAlchemy URL, it may hold a password. Default: SQLite at `home`/conch.db. CONCH_DATABASE_URL."""
    artifacts_uri: str = ""
    """Where checkpoints go. Default: `home`/artifacts. CONCH_ARTIFACTS_URI."""
    repository_uri: str = "model_repository"
    """The Triton model repository that versions are published into. CONCH_REPOSITORY_URI."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR. CONCH_LOG_LEVEL."""

    def resolved_home(self) -> Path:
        """Returns `home` as an absolute path, made if it did not exist."""
        home = self.home.expanduser().absolute()
        home.mkdir(parents=True, exist_ok=True)
        return home

    def resolved_database_url(self) -> str:
        """Returns the SQLAlchemy URL of the jobs database."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.resolved_home() / 'conch.db'}"

    def resolved_artifacts_uri(self) -> str:
        """Returns where checkpoints go."""
        return self.artifacts_uri or str(self.resolved_home() / "artifacts")

    def resolved_repository_uri(self) -> str:
        """Returns the model repository, an absolute path where it is a path."""
        return (
            self.repository_uri if "://" in self.repository_uri else str(Path(self.repository_uri).absolute())
        )
