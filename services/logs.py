"""structlog for every process: JSON lines unless a person looks on.

Events are constant and dotted, `<noun>.<past participle>`; facts are keys, with units in their
names; a user's text is never logged.
"""

import logging
import sys

import structlog


def configure(*, service: str, level: str = "INFO") -> None:
    """Sets structlog and the standard library's root logger up; `service` stands in every line."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        # One write a line: threads that log at once would mix theirs.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, force=True)
