"""What every task reads of a row in the same way: texts, and which rows a complaint is about.

Knows values as files hold them; knows nothing about labels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_SHOWN_ROWS = 5


def read_text(values: Mapping[str, Any], role: str = "text") -> str:
    """Returns the text of a role. Raises ValueError if it is missing, empty, no string or no Unicode."""
    value = values.get(role)
    if value is None:
        raise ValueError(f"{role} is missing")
    if not isinstance(value, str):
        raise ValueError(f"{role} is not a string but {type(value).__name__}")
    if not is_unicode(value):
        raise ValueError(f"{role} is not valid UTF-8")
    if not value.strip():
        raise ValueError(f"{role} is empty")
    return value


def read_text_pair(values: Mapping[str, Any], role: str = "text_pair") -> str:
    """Returns the second text of a pair, empty where the file has no such column. Raises ValueError."""
    return read_text(values, role) if role in values else ""


def is_unicode(text: str) -> bool:
    """Returns True if `text` can be written as UTF-8, that is, if it holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def rows_shown(rows: Sequence[int]) -> str:
    """Returns "row 3", "rows 3, 8" or "rows 1, 2, 3, 4, 5, ... (12 in all)"."""
    shown = ", ".join(str(row) for row in rows[:_SHOWN_ROWS])
    more = f", ... ({len(rows)} in all)" if len(rows) > _SHOWN_ROWS else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"
