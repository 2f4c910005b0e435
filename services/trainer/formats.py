"""Data files to rows: JSONL, CSV, TSV, Parquet, CoNLL and SQuAD.

Knows formats and encodings; knows nothing about roles, labels or tasks. A row that cannot be read
becomes a `Broken` in its place, so that every broken row of a file is found in one pass.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from conch.v1 import training_pb2
from services.errors import InvalidRequest
from services.tasks.reading import is_unicode
from services.trainer import conll, squad

Row = dict[str, Any]

_BY_SUFFIX: dict[str, int] = {
    ".jsonl": training_pb2.Dataset.FORMAT_JSONL,
    ".ndjson": training_pb2.Dataset.FORMAT_JSONL,
    ".json": training_pb2.Dataset.FORMAT_JSONL,
    ".csv": training_pb2.Dataset.FORMAT_CSV,
    ".tsv": training_pb2.Dataset.FORMAT_CSV,
    ".parquet": training_pb2.Dataset.FORMAT_PARQUET,
    ".conll": training_pb2.Dataset.FORMAT_CONLL,
}
# The csv module refuses fields over 128 KiB unless told otherwise; long documents are longer.
_LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True)
class Broken:
    """A row that cannot be read; `reason` completes "row 7: ..."."""

    reason: str


@dataclass(frozen=True)
class Table:
    """A file's columns, and its rows with their numbers: from 1, headers not counted.

    Lines are counted where rows are lines (JSONL) or begin with one (CoNLL, text).
    """

    columns: list[str]
    rows: list[tuple[int, Row | Broken]]


def format_of(uri: str, asked: int, *, field: str, task_formats: Mapping[str, int] | None = None) -> int:
    """Returns the format asked for, else the one that the file's name says, to the task first.

    Raises InvalidRequest.
    """
    by_suffix = {**_BY_SUFFIX, **(task_formats or {})}
    found = asked or by_suffix.get(Path(uri).suffix.lower())
    if not found:
        known = " ".join(by_suffix)
        raise InvalidRequest.field(
            field, f"cannot tell the format of {uri!r}: name it in dataset.format or end it in {known}"
        )
    return found


def read_table(path: Path, *, uri: str, file_format: int, field: str) -> Table:
    """Returns the rows of the file at `path`, which came from `uri`.

    Raises InvalidRequest that names `field` where the file as a whole is not of its format.
    """
    if file_format == training_pb2.Dataset.FORMAT_PARQUET:
        return _read_parquet(path, uri, field)
    if (articles := _articles(path, uri, file_format, field)) is not None:
        return _read_squad(articles)
    read: Callable[[TextIO], Table] = _read_jsonl
    if file_format == training_pb2.Dataset.FORMAT_TEXT:
        read = _read_text
    if file_format == training_pb2.Dataset.FORMAT_CONLL:
        read = _read_conll
    if file_format == training_pb2.Dataset.FORMAT_CSV:
        delimiter = "\t" if uri.lower().endswith(".tsv") else ","
        read = lambda file: _read_csv(file, delimiter)  # noqa: E731
    # surrogateescape: bytes that are no UTF-8 come through as lone surrogates, so that the row which
    # holds them can be named. newline: only \n ends a JSONL line, and csv wants to see them all.
    newline = "" if file_format == training_pb2.Dataset.FORMAT_CSV else "\n"
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline) as file:
        return read(file)


def _read_jsonl(file: TextIO) -> Table:
    columns: dict[str, None] = {}
    rows: list[tuple[int, Row | Broken]] = []
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        row = _json_row(line)
        rows.append((number, row))
        if isinstance(row, dict):
            columns.update(dict.fromkeys(row))
    return Table(list(columns), rows)


def _read_text(file: TextIO) -> Table:
    """Returns the documents of a plain text: what stands between empty lines."""
    lines = [(number, line) for number, line in enumerate(file, start=1)]
    blocks = (list(block) for full, block in groupby(lines, key=lambda line: bool(line[1].strip())) if full)
    rows: list[tuple[int, Row | Broken]] = [
        (block[0][0], {"text": "".join(line for _, line in block).strip()}) for block in blocks
    ]
    return Table(["text"], rows)


def _json_row(line: str) -> Row | Broken:
    if not is_unicode(line):
        return Broken("is not valid UTF-8")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return Broken("is no JSON object (one object a line is wanted)")
    if not isinstance(value, dict):
        return Broken(f"is a JSON {type(value).__name__}, not an object (one object a line is wanted)")
    return value


def _read_conll(file: TextIO) -> Table:
    return Table(list(conll.COLUMNS), [(line, _conll_row(lines)) for line, lines in conll.sentences(file)])


def _conll_row(lines: conll.Sentence) -> Row | Broken:
    try:
        return conll.row_of(lines)
    except ValueError as error:
        return Broken(str(error))


def _articles(path: Path, uri: str, file_format: int, field: str) -> list[Any] | None:
    """Returns what a SQuAD file holds: one that is asked for, or a .json that is one object."""
    may_be = file_format == training_pb2.Dataset.FORMAT_JSONL and uri.lower().endswith(".json")
    must_be = file_format == training_pb2.Dataset.FORMAT_SQUAD
    articles = squad.load(path) if may_be or must_be else None
    if must_be and articles is None:
        message = f'{uri} is no SQuAD file: one JSON object with a list "data" is wanted'
        raise InvalidRequest.field(field, message, reason="UNREADABLE_FILE")
    return articles


def _read_squad(articles: list[Any]) -> Table:
    rows = [(number, _squad_row(entry)) for number, entry in enumerate(squad.entries(articles), start=1)]
    columns = dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row)
    return Table(list(columns), rows)


def _squad_row(entry: squad.Entry) -> Row | Broken:
    try:
        return squad.row_of(entry)
    except ValueError as error:
        return Broken(str(error))


def _read_csv(file: TextIO, delimiter: str) -> Table:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    rows: list[tuple[int, Row | Broken]] = []
    header: list[str] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        for record in _records(reader):
            rows.append((len(rows) + 1, _csv_row(header, record)))
    except csv.Error as error:
        rows.append((len(rows) + 1, Broken(f"is no CSV ({error}); what follows it was not read")))
    return Table(header, rows)


def _records(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    return (record for record in reader if record)


def _csv_row(header: list[str], record: list[str]) -> Row | Broken:
    if len(record) != len(header):
        return Broken(f"has {len(record)} fields where the header has {len(header)}")
    return dict(zip(header, record, strict=True))


def _read_parquet(path: Path, uri: str, field: str) -> Table:
    try:
        schema = pq.read_schema(path)
        flat = [f.name for f in schema if not pa.types.is_nested(f.type)]
        table = pq.read_table(path, columns=flat)
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequest.field(
            field, f"{uri} is no Parquet file: {error}", reason="UNREADABLE_FILE"
        ) from error
    values = [_parquet_values(table.column(name)) for name in flat]
    rows = [
        (number, dict(zip(flat, record, strict=True)))
        for number, record in enumerate(zip(*values, strict=True), start=1)
    ]
    return Table([f.name for f in schema], list(rows))


def _parquet_values(column: Any) -> list[Any]:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    column = column.cast(kind)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        # pyarrow does not check UTF-8 on reading and fails as a whole on the first bad byte.
        column = column.cast(pa.large_binary())
    return [_decoded(value) for value in column.to_pylist()]


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
