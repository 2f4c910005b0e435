"""Settings that every service shares: environment variables CONCH_*, read once in `__main__`.

A service's own settings subclass `SharedSettings`. Nothing else in Conch reads the environment.
"""

import sys
from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr, ValidationError
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


Settings = TypeVar("Settings", bound=SharedSettings)


def read(kind: type[Settings], *, program: str) -> Settings:
    """Returns the settings; a bad one ends the process with exit status 2 and one line that names it."""
    try:
        return kind()
    except ValidationError as error:
        print(f"{program}: {describe(error)}", file=sys.stderr)
        raise SystemExit(2) from None


def describe(error: ValidationError) -> str:
    """Returns which variables are wrong and why, on one line."""
    return "; ".join(f"CONCH_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
