"""What every task reads of a row in the same way, and how it complains: of fields, labels and rows.

Knows values as files hold them; knows nothing about what labels mean.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from services.errors import Violation
from services.tasks.example import Example

TRAIN, VALIDATION = "spec.dataset.train_uri", "spec.dataset.validation_uri"
"""The fields of a training spec that complaints about data name."""
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


def unseen_labels(field: str, labels: Sequence[str], seen: Collection[str]) -> list[Violation]:
    """Returns a violation if labels that `field` asks for never occur."""
    missing = ", ".join(repr(label) for label in dict.fromkeys(labels) if label not in seen)
    return [Violation(field, f"the training split has no example of {missing}")] if missing else []


def stray_rows(
    examples: Iterable[Example], known: Collection[str], labels_of: Callable[[Example], Iterable[str]]
) -> dict[str, list[int]]:
    """Returns the rows of each label that is not `known`, in the order of the file."""
    rows: dict[str, list[int]] = {}
    for example in examples:
        for label in dict.fromkeys(labels_of(example)):
            if label not in known:
                rows.setdefault(label, []).append(example.row)
    return rows


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
