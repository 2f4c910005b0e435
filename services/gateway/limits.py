"""What a request for answers must look like, checked before any work is done for it.

Knows texts and settings; knows nothing about tasks, models or tokens.
"""

from collections.abc import Sequence

from services.errors import InvalidRequest
from services.gateway.settings import GatewaySettings

_MOST_BYTES_A_CHARACTER = 4


def check_texts(texts: Sequence[str], pairs: Sequence[str], settings: GatewaySettings) -> None:
    """Raises InvalidRequest that names the first bad field (`texts[3]`) and what is wrong with it."""
    if not texts:
        raise InvalidRequest.field("texts", "at least one text is required", reason="NO_TEXTS")
    if len(texts) > settings.max_texts:
        raise InvalidRequest.field(
            "texts", f"{len(texts)} texts, at most {settings.max_texts} may be sent", reason="TOO_MANY_TEXTS"
        )
    if pairs and len(pairs) != len(texts):
        raise InvalidRequest.field(
            "text_pairs",
            f"{len(pairs)} for {len(texts)} texts; send one for each or none",
            reason="PAIRS_MISMATCH",
        )
    for field, values in (("texts", texts), ("text_pairs", pairs)):
        for i, text in enumerate(values):
            _check_text(f"{field}[{i}]", text, settings.max_text_bytes)


def num_characters(texts: Sequence[str], pairs: Sequence[str]) -> int:
    """Returns how much text there is to read."""
    return sum(map(len, texts)) + sum(map(len, pairs))


def _check_text(field: str, text: str, max_bytes: int) -> None:
    if not text or text.isspace():
        raise InvalidRequest.field(field, "is empty or only white space", reason="EMPTY_TEXT")
    if len(text) * _MOST_BYTES_A_CHARACTER > max_bytes and (size := len(text.encode())) > max_bytes:
        raise InvalidRequest.field(
            field, f"has {size} bytes of UTF-8, at most {max_bytes} may be sent", reason="TEXT_TOO_LONG"
        )
