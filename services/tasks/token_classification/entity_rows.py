"""Rows of data files to texts with typed spans, and what can be wrong with their types.

Knows values as files hold them; knows nothing about tokens of a model.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from services.errors import Violation
from services.tasks.example import Example
from services.tasks.reading import TRAIN, VALIDATION, is_unicode, read_text, rows_shown, stray_rows
from services.tasks.token_classification.spans import OUTSIDE, Span, check_spans, join_tokens, spans_of_tags

TYPES = "spec.task_spec.token_classification.labels"


def read_row(values: Mapping[str, Any]) -> tuple[str, list[Span]]:
    """Returns the text of a row and its spans in order: of tokens and tags, else of text and spans.

    Raises ValueError that says what is wrong.
    """
    if "tokens" in values and "tags" in values:
        return _of_tokens(values["tokens"], values["tags"])
    text = read_text(values)
    found = [_span(i, value) for i, value in enumerate(_list("spans", values.get("spans")), start=1)]
    return text, check_spans(found, text)


def _of_tokens(tokens: Any, tags: Any) -> tuple[str, list[Span]]:
    tokens, tags = _list("tokens", tokens), _list("tags", tags)
    if not tokens:
        raise ValueError("tokens is empty")
    if len(tokens) != len(tags):
        raise ValueError(f"has {len(tokens)} tokens and {len(tags)} tags")
    for i, (token, tag) in enumerate(zip(tokens, tags, strict=True), start=1):
        _check_token(i, token, tag)
    text, offsets = join_tokens(tokens)
    return text, spans_of_tags(tags, tokens, offsets)


def _check_token(i: int, token: Any, tag: Any) -> None:
    if not isinstance(token, str) or not token.strip():
        raise ValueError(f"token {i} is {token!r}, not a string with something in it")
    if not is_unicode(token):
        raise ValueError(f"token {i} is not valid UTF-8")
    if isinstance(tag, int):
        raise ValueError(f"token {i} {token!r} has the number {tag} for a tag: tags are wanted by name")
    if not isinstance(tag, str) or not is_unicode(tag):
        raise ValueError(f"token {i} {token!r} has a tag that is no string")


def _list(role: str, value: Any) -> list[Any]:
    if value is None:
        raise ValueError(f"{role} is missing")
    if isinstance(value, str):  # as in a cell of a CSV file
        value = _json(value)
    if not isinstance(value, list):
        raise ValueError(f"{role} is not a list but {type(value).__name__}")
    return value


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _span(i: int, value: Any) -> Span:
    if not isinstance(value, dict) or not {"start", "end", "label"} <= value.keys():
        raise ValueError(f"span {i} is no object with start, end and label")
    start, end, label = value["start"], value["end"], value["label"]
    for number in (start, end):
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError(f"span {i} begins or ends at {number!r}, which is no whole number")
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"span {i} [{start}, {end}) has no label")
    if problem := _type_problem(label):
        raise ValueError(f"span {i} [{start}, {end}) has the label {label!r}, which {problem}")
    return Span(label, start, end)


def _type_problem(name: str) -> str:
    if not is_unicode(name):
        return "is not valid UTF-8"
    return "stands for no entity" if name == OUTSIDE else ""


def check_types(types: Sequence[str]) -> list[Violation]:
    """Returns what is wrong with the types that a spec names."""
    if len(set(types)) < len(types) or any(not name.strip() for name in types):
        return [Violation(TYPES, "labels must differ and none may be empty")]
    return [
        Violation(TYPES, f"label {name!r} {problem}") for name in types if (problem := _type_problem(name))
    ]


def stray_types(
    train: Sequence[Example], validation: Sequence[Example], types: Sequence[str]
) -> list[Violation]:
    """Returns a violation for each type that the model is not to know, with its rows."""
    return [
        *_strays(TRAIN, train, types, "is not among the spec's labels"),
        *_strays(VALIDATION, validation, types, "never occurs in the training split"),
    ]


def _strays(field: str, examples: Sequence[Example], types: Sequence[str], why: str) -> list[Violation]:
    rows = stray_rows(examples, types, lambda example: [label for _, _, label in example.target])
    return [Violation(field, f"label {name!r} ({rows_shown(found)}) {why}") for name, found in rows.items()]
