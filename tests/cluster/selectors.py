"""Label and field selectors of the Kubernetes API."""

from collections.abc import Iterator, Mapping
from typing import Any


def matches(obj: Mapping[str, Any], labels: str, fields: str) -> bool:
    """Says whether both selectors match an object; empty ones match all."""
    present = obj["metadata"].get("labels") or {}
    return all(_label_matches(present, term) for term in _terms(labels)) and all(
        _field_matches(obj, term) for term in _terms(fields)
    )


def _terms(selector: str) -> Iterator[str]:
    depth, term = 0, ""
    for character in selector + ",":
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            if term.strip():
                yield term.strip()
            term = ""
        else:
            term += character


def _label_matches(labels: Mapping[str, str], term: str) -> bool:
    for word, wanted in ((" notin ", False), (" in ", True)):
        if word in term:
            name, _, values = term.partition(word)
            among = {value.strip() for value in values.strip(" ()").split(",")}
            return (labels.get(name.strip()) in among) is wanted
    if "!=" in term:
        name, _, value = term.partition("!=")
        return labels.get(name.strip()) != value.strip()
    if "=" in term:
        name, _, value = term.replace("==", "=").partition("=")
        return labels.get(name.strip()) == value.strip()
    return term[1:] not in labels if term.startswith("!") else term in labels


def _field_matches(obj: Mapping[str, Any], term: str) -> bool:
    name, _, value = term.replace("==", "=").partition("=")
    differs, name = name.endswith("!"), name.rstrip("!")
    found: Any = obj
    for part in name.split("."):
        found = found.get(part, "") if isinstance(found, Mapping) else ""
    return (str(found) == value) is not differs
