"""Directions of translation: which ones a model knows, which one is meant, and what is put before its texts.

Knows TaskSpec and BCP 47 tags; knows nothing about rows or requests.
"""

import re
from collections.abc import Sequence

from conch.v1 import tasks_pb2
from services.errors import Violation

FIELD = "spec.task_spec.text2text_generation.language_pairs"
_TAG = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")

Spec = tasks_pb2.Text2TextGenerationSpec


class UnknownPairError(ValueError):
    """No pair, or more than one, is meant by two tags; the message says which there are."""


def check_pairs(own: Spec) -> list[Violation]:
    """Returns what is wrong with the pairs of a spec."""
    problems = [
        Violation(f"{FIELD}[{i}].{name}", "must be a BCP 47 tag such as en or pt-BR")
        for i, pair in enumerate(own.language_pairs)
        for name in ("source", "target")
        if not _TAG.fullmatch(getattr(pair, name))
    ]
    if len({_name(pair) for pair in own.language_pairs}) < len(own.language_pairs):
        problems.append(Violation(FIELD, "pairs must differ"))
    targets: dict[str, str] = {}
    for pair in own.language_pairs:
        if targets.setdefault(prefix_of(pair, own), pair.target) != pair.target:
            problems.append(
                Violation(
                    FIELD, "pairs of different targets need prefixes that differ: nothing else tells them"
                )
            )
            break
    return problems


def choose(pairs: Sequence[tasks_pb2.LanguagePair], source: str, target: str) -> tasks_pb2.LanguagePair:
    """Returns the one pair that two tags mean, case ignored; an empty tag fits every language.

    Raises UnknownPairError.
    """
    fitting = [
        pair
        for pair in pairs
        if source.lower() in ("", pair.source.lower()) and target.lower() in ("", pair.target.lower())
    ]
    if len(fitting) == 1:
        return fitting[0]
    asked = f"{source or 'any'} to {target or 'any'}"
    count = "several pairs fit" if fitting else "no pair fits"
    raise UnknownPairError(f"{count} {asked}; the model knows {', '.join(_shown(pair) for pair in pairs)}")


def prefix_of(pair: tasks_pb2.LanguagePair, own: Spec) -> str:
    """Returns what is put before a text of a pair."""
    return pair.prefix or own.prefix


def only_translates(own: Spec) -> bool:
    """Returns whether each text is translated.

    A model that does something else besides, as T5 does, is told so by a prefix of its own.
    """
    own_prefixes = bool(own.prefix) and all(pair.prefix for pair in own.language_pairs)
    return bool(own.language_pairs) and not own_prefixes


def _name(pair: tasks_pb2.LanguagePair) -> tuple[str, str]:
    return pair.source.lower(), pair.target.lower()


def _shown(pair: tasks_pb2.LanguagePair) -> str:
    return f"{pair.source} to {pair.target}"
