"""What verbs that run as containers of a pod share: their routes, and how their end is said.

Knows the file that Kubernetes shows as the reason of a container's end; knows nothing about staging.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from services.cli.failures import CliError, of_service
from services.errors import InvalidRequest, NotFound, ServiceError

_MAX_BYTES = 4096  # of a termination message, says Kubernetes


@contextmanager
def explained(termination_log: Path) -> Iterator[None]:
    """Turns a ServiceError into this process's failure; writes each failure where Kubernetes shows it."""
    try:
        yield
    except ServiceError as error:
        failure = of_service(error)
        explain(termination_log, failure.message)
        raise failure from error
    except CliError as error:
        explain(termination_log, error.message)
        raise


def log_to_stderr() -> None:
    """Keeps stdout for the result, and what is only of interest to us out of what people read."""
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def explain(termination_log: Path, text: str) -> None:
    """Writes why this container ends, where Kubernetes keeps a file for that."""
    if termination_log.exists():
        with suppress(OSError):
            termination_log.write_bytes(text.encode()[:_MAX_BYTES])


def counted(number: int, noun: str) -> str:
    """Returns "1 version" or "3 versions"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def read_text(path: Path) -> str:
    """Returns a mounted file's content. Raises NotFound, or InvalidRequest if it is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", reason="FILE_NOT_FOUND") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest.field(path.name, f"cannot be read: {error}") from error
