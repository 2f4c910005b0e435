"""`--option name=value`: a task's own choices, read by reflection from its message in TaskSpec.

Knows descriptors and the comments of tasks.proto, no task by name: a field added there is an option here.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from rich.table import Table

from conch.v1 import tasks_pb2
from services.cli import output
from services.cli.failures import USAGE, CliError

TASKS = {field.name.replace("_", "-"): field for field in tasks_pb2.TaskSpec.DESCRIPTOR.fields}
"""The tasks' ids and their fields in TaskSpec, which bear the same names with underscores."""

_TYPES = {
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_BOOL: "true|false",
    FieldDescriptor.CPPTYPE_UINT32: "whole number",
    FieldDescriptor.CPPTYPE_DOUBLE: "number",
}
# A message's name or its end, a comment, a field: tasks.proto has nothing else that matters here.
_LINES = re.compile(
    r"^ *(?:(?:message|enum|oneof) (\w+) \{|(\})|// (.*)|(?:repeated |optional )?\w+ (\w+) = )", re.M
)


def task_spec(task: str, options: Sequence[str], labels: Sequence[str]) -> tasks_pb2.TaskSpec | None:
    """Returns what was chosen for the task, None if nothing was.

    Raises CliError for what the task does not have, having shown what it has.
    """
    if not options and not labels:
        return None
    kind = _kind(task)
    fields = _fields(kind)
    if labels and "labels" not in fields:
        raise CliError(f"--label: {task} has no labels", exit_code=USAGE)
    spec = tasks_pb2.TaskSpec()
    for name, text in _pairs(options, task, fields):
        spec.MergeFrom(_parsed(kind, fields[name], text))
    if labels:
        getattr(spec, kind.name).labels.extend(labels)
    return spec


def choices(task: str) -> Table:
    """Returns the options of a task with their types and meanings. Raises CliError for an unknown task."""
    kind = _kind(task)
    lines = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("--option", "value", "meaning"):
        lines.add_column(column, overflow="fold")
    for field in _fields(kind).values():
        lines.add_row(field.name, _type(field), _meaning(field))
    return lines


def _kind(task: str) -> FieldDescriptor:
    if task not in TASKS:
        raise CliError(f"--task {task!r}: one of {', '.join(TASKS)}", exit_code=USAGE)
    return TASKS[task]


def _fields(kind: FieldDescriptor) -> dict[str, FieldDescriptor]:
    """Returns what can be chosen by name: all but what the trainer writes itself."""
    found = kind.message_type.fields if kind.message_type else ()
    return {field.name: field for field in found if not _meaning(field).startswith("Output only")}


def _pairs(options: Sequence[str], task: str, known: dict[str, FieldDescriptor]) -> Iterator[tuple[str, str]]:
    for option in options:
        name, equals, text = option.partition("=")
        name = name.replace("-", "_")
        if not equals or name not in known:
            output.remarks().print(choices(task))
            why = "write name=value" if name in known else f"{task} has {', '.join(known)}"
            raise CliError(f"--option {option!r}: {why}", exit_code=USAGE)
        yield name, text


def _parsed(kind: FieldDescriptor, field: FieldDescriptor, text: str) -> tasks_pb2.TaskSpec:
    """Returns a spec with this field alone: merged, repeated fields append and others replace."""
    try:
        return json_format.ParseDict({kind.name: {field.name: _value(field, text)}}, tasks_pb2.TaskSpec())
    except json_format.ParseError:
        raise CliError(f"--option {field.name}={text}: it takes {_type(field)}", exit_code=USAGE) from None


def _value(field: FieldDescriptor, text: str) -> Any:
    """Returns the value as json_format reads it: JSON if it is JSON, short names of enums, else a text."""
    value = _json(text)
    if field.is_repeated and isinstance(value, list):
        return [_single(field, item) for item in value]
    is_text = field.cpp_type == FieldDescriptor.CPPTYPE_STRING and not isinstance(value, str)
    one = _single(field, text if is_text else value)
    return [one] if field.is_repeated else one


def _single(field: FieldDescriptor, value: Any) -> Any:
    return value if field.enum_type is None else _enum_name(field, field.enum_type, str(value))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _enum_name(field: FieldDescriptor, kind: EnumDescriptor, name: str) -> str:
    known = _enum_names(kind)
    if name.lower() not in known:
        raise CliError(f"--option {field.name}={name}: one of {', '.join(known)}", exit_code=USAGE)
    return known[name.lower()]


def _enum_names(kind: EnumDescriptor) -> dict[str, str]:
    """Returns multi_label -> PROBLEM_TYPE_MULTI_LABEL and so on, without the unspecified one."""
    values = [value.name for value in kind.values if value.number]
    prefix = kind.values[0].name.removesuffix("UNSPECIFIED")
    return {name.removeprefix(prefix).lower(): name for name in values}


def _type(field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        name = "|".join(_enum_names(field.enum_type))
    elif field.message_type is not None:
        name = json.dumps({inner.name: _type(inner) for inner in field.message_type.fields})
    else:
        name = _TYPES.get(field.cpp_type, "number")
    return f"{name}, repeated" if field.is_repeated else name


def _meaning(field: FieldDescriptor) -> str:
    owner = field.containing_type.name if field.containing_type else ""
    return _comments().get((owner, field.name), "")


@cache
def _comments() -> dict[tuple[str, str], str]:
    """Returns the comment of each field by message and field; descriptors do not carry them."""
    found: dict[tuple[str, str], str] = {}
    scopes: list[str] = []
    comment: list[str] = []
    for scope, end, words, field in _LINES.findall(_source()):
        if words:
            comment.append(words)
            continue
        if scope:
            scopes.append(scope)
        elif end:
            scopes.pop()
        else:
            found[scopes[-1], field] = " ".join(comment)
        comment = []
    return found


def _source() -> str:
    return resources.files("conch.v1").joinpath("tasks.proto").read_text(encoding="utf-8")
