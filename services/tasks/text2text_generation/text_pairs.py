"""Rows of a text and the text that is to be made of it: plain columns, or translations by language.

Knows values as files hold them and TaskSpec; knows nothing about files or tokens.
"""

from collections.abc import Mapping
from typing import Any

from conch.v1 import tasks_pb2
from services.tasks.reading import read_text
from services.tasks.text2text_generation.language_pairs import Spec, choose, only_translates, prefix_of


def read_pair(values: Mapping[str, Any], own: Spec) -> tuple[str, str]:
    """Returns a row's text, its prefix before it, and its target.

    Raises ValueError that completes "row 7: ...".
    """
    translation = values.get("translation")
    if isinstance(translation, Mapping):
        pair = _pair_of(values, own, languages=translation)
        text, target = read_text(translation, pair.source), read_text(translation, pair.target)
        return prefix_of(pair, own) + text, target
    target = read_text(values, "target" if "target" in values else "translation")
    return _prefix(values, own) + read_text(values), target


def _prefix(values: Mapping[str, Any], own: Spec) -> str:
    named = any(values.get(role) for role in ("source_language", "target_language"))
    if named or only_translates(own):
        return prefix_of(_pair_of(values, own), own)
    return own.prefix


def _pair_of(
    values: Mapping[str, Any], own: Spec, *, languages: Mapping[str, Any] | None = None
) -> tasks_pb2.LanguagePair:
    """Returns the pair that the row's tags mean, of those whose languages are all in `languages`."""
    if not own.language_pairs:
        raise ValueError("holds a translation, but the task_spec names no language_pairs")
    tags = [str(values.get(role) or "") for role in ("source_language", "target_language")]
    known = languages
    pairs = [
        pair
        for pair in own.language_pairs
        if known is None or (pair.source in known and pair.target in known)
    ]
    return choose(pairs or list(own.language_pairs), *tags)
