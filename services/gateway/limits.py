"""What a request for answers must look like, checked before any work is done for it.

Knows texts and settings; knows nothing about tasks, models or tokens.
"""

from collections.abc import Sequence

from services.errors import InvalidRequest
from services.gateway.settings import GatewaySettings
from services.tasks.rpcs import TextField

_MOST_BYTES_A_CHARACTER = 4


def check_texts(fields: Sequence[TextField], settings: GatewaySettings) -> None:
    """Raises InvalidRequest that names the first bad field (`texts[3]`) and what is wrong with it."""
    for field in fields:
        _check_number(field, field.most or settings.max_texts)
        for i, text in enumerate(field.texts):
            _check_text(field.path(i), text, settings.max_text_bytes)


def check_total(field: TextField, settings: GatewaySettings) -> None:
    """Raises InvalidRequest if a field's texts, which the model reads as one, are too long together."""
    size = sum(len(text.encode()) for text in field.texts)
    if size > settings.max_text_bytes:
        raise InvalidRequest.field(
            field.name,
            f"has {size} bytes of UTF-8 in all, at most {settings.max_text_bytes} may be sent",
            reason="TEXT_TOO_LONG",
        )


def check_windows(found: int, field: str, settings: GatewaySettings) -> None:
    """Raises InvalidRequest naming `field` if a request is read in more windows than may be sent at once."""
    if found > settings.max_windows:
        message = f"are read in {found} windows, at most {settings.max_windows} may be sent at once"
        raise InvalidRequest.field(field, message, reason="TOO_MANY_WINDOWS")


def num_characters(fields: Sequence[TextField]) -> int:
    """Returns how much text there is to read."""
    return sum(len(text) for field in fields for text in field.texts)


def _check_number(field: TextField, most: int) -> None:
    found = len(field.texts)
    if found < field.least:
        message = (
            "at least one text is required" if field.least == 1 else f"{found}, {field.least} are required"
        )
        raise InvalidRequest.field(field.name, message, reason="NO_TEXTS")
    if found > most:
        message = f"{found} texts, at most {most} may be sent"
        raise InvalidRequest.field(field.name, message, reason="TOO_MANY_TEXTS")


def _check_text(field: str, text: str, max_bytes: int) -> None:
    if not text or text.isspace():
        raise InvalidRequest.field(field, "is empty or only white space", reason="EMPTY_TEXT")
    if len(text) * _MOST_BYTES_A_CHARACTER > max_bytes and (size := len(text.encode())) > max_bytes:
        raise InvalidRequest.field(
            field, f"has {size} bytes of UTF-8, at most {max_bytes} may be sent", reason="TEXT_TOO_LONG"
        )
