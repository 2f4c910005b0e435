"""Rows to examples: which column plays which role, and everything that can be wrong with a row.

Knows roles and texts; knows nothing about splits or tokens. What is wrong with labels as such is the
task's to say.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conch.v1 import tasks_pb2, training_pb2
from services import storage
from services.errors import InvalidRequest, Violation
from services.tasks import Column, Example, Task
from services.tasks.reading import TRAIN, rows_shown
from services.trainer.formats import Broken, Row, Table, format_of, read_table

Reader = Callable[[Mapping[str, Any], int], Example]


@dataclass
class Split:
    """The readable examples of one file, and what is wrong with the other rows."""

    examples: list[Example] = field(default_factory=list)
    problems: list[Violation] = field(default_factory=list)


def read_split(
    dataset: training_pb2.Dataset, task: Task, spec: tasks_pb2.TaskSpec, *, name: str, scratch: Path
) -> Split:
    """Returns the examples of the file that `name` (`TRAIN` or `VALIDATION`) points at.

    Remote files are downloaded into the folder `scratch`. Raises InvalidRequest where no row can be
    read at all: no such file, unknown format, missing column, 0 rows. Raises BackendUnavailable.
    """
    uri = dataset.train_uri if name == TRAIN else dataset.validation_uri
    file_format = format_of(uri, dataset.format, field=name, task_formats=task.formats)
    scratch.mkdir(parents=True, exist_ok=True)
    path = storage.fetch_file(uri, scratch / name.rpartition(".")[2], field=name)
    table = read_table(path, uri=uri, file_format=file_format, field=name)
    if not table.rows:
        raise InvalidRequest.field(name, f"{uri} has 0 rows", reason="EMPTY_DATASET")
    columns = choose_columns(table.columns, task, dataset.columns, uri=uri) if _is_readable(table) else {}
    return _examples(table, lambda values, row: task.read(values, row, spec), columns, field_name=name)


def choose_columns(found: Sequence[str], task: Task, asked: Mapping[str, str], *, uri: str) -> dict[str, str]:
    """Returns role -> column: the one asked for, else the first usual name, case ignored.

    An optional role without a column is left out. Raises InvalidRequest that lists the columns found.
    """
    roles = [column.role for column in task.columns]
    problems = [_unknown_role(role, roles) for role in asked if role not in roles]
    chosen = {}
    for column in task.columns:
        name = asked.get(column.role) or _guess(column, found)
        if name in found:
            chosen[column.role] = name
        elif column.required or name:
            problems.append(_no_column(column, name, found, uri))
    problems += _no_set(task, chosen, found, uri)
    problems += [_twice(name, uri) for name in chosen.values() if list(found).count(name) > 1]
    if problems:
        raise InvalidRequest(*problems, reason="MISSING_COLUMN")
    return chosen


def _is_readable(table: Table) -> bool:
    return any(isinstance(row, dict) for _, row in table.rows)


def _examples(table: Table, read: Reader, columns: Mapping[str, str], *, field_name: str) -> Split:
    split, complaints = Split(), dict[str, list[int]]()
    for number, row in table.rows:
        found = row if isinstance(row, Broken) else _example(number, row, columns, read)
        if isinstance(found, Example):
            split.examples.append(found)
        else:
            complaints.setdefault(found.reason, []).append(number)
    split.problems = [Violation(field_name, f"{rows_shown(rows)}: {why}") for why, rows in complaints.items()]
    return split


def _example(number: int, row: Row, columns: Mapping[str, str], read: Reader) -> Example | Broken:
    try:
        return read({role: row.get(name) for role, name in columns.items()}, number)
    except ValueError as error:
        return Broken(str(error))


def _guess(column: Column, found: Sequence[str]) -> str:
    by_name = {name.strip().lower(): name for name in reversed(found)}
    return next((by_name[guess] for guess in column.guesses if guess in by_name), "")


def _unknown_role(role: str, roles: Sequence[str]) -> Violation:
    return Violation("spec.dataset.columns", f"unknown role {role!r}; roles: {', '.join(roles)}")


def _no_column(column: Column, name: str, found: Sequence[str], uri: str) -> Violation:
    there = ", ".join(repr(f) for f in found) or "none"
    what = f"no column {name!r}" if name else f"no column that looks like the {column.role}"
    return Violation(
        "spec.dataset.columns", f"{uri} has {what} (role {column.role!r}); its columns are: {there}"
    )


def _no_set(task: Task, chosen: Mapping[str, str], found: Sequence[str], uri: str) -> list[Violation]:
    if not task.column_sets or any(chosen.keys() >= set(roles) for roles in task.column_sets):
        return []
    wanted = " or ".join(" and ".join(roles) for roles in task.column_sets)
    there = ", ".join(repr(f) for f in found) or "none"
    return [Violation("spec.dataset.columns", f"{uri} has no columns for {wanted}; its columns are: {there}")]


def _twice(name: str, uri: str) -> Violation:
    return Violation("spec.dataset.columns", f"{uri} has more than one column {name!r}")
