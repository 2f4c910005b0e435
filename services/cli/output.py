"""What goes where: results to stdout, progress and remarks to stderr, so that stdout stays pure.

Knows rich and proto-JSON; knows nothing about verbs.
"""

import json
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console, RenderableType

_PIPE_WIDTH = 400

AsJson = Annotated[
    bool, typer.Option("--json", help="Print proto-JSON, one object a line, and nothing else on stdout.")
]


def as_dict(message: Message) -> dict[str, Any]:
    """Returns a message as proto-JSON names and values, fields at their default included."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def print_json(content: Message | dict[str, Any]) -> None:
    """Prints one object on one line of stdout, at once."""
    record = as_dict(content) if isinstance(content, Message) else content
    sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_result(content: Message | dict[str, Any], *, as_json: bool, view: RenderableType) -> None:
    """Prints a verb's result for programs or, as `view`, for people."""
    if as_json:
        print_json(content)
    else:
        _console(stderr=False).print(view)


def print_lines(values: Iterable[object]) -> None:
    """Prints each value as JSON on a line of stdout."""
    for value in values:
        sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def print_texts(texts: Iterable[str]) -> None:
    """Prints texts as they are, each on lines of its own; nothing is wrapped or marked up."""
    for text in texts:
        sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_piece(text: str) -> None:
    """Prints a part of a line, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def remark(text: str) -> None:
    """Says something beside the result, on stderr."""
    remarks().print(text, markup=False)


def remarks() -> Console:
    """Returns the console of stderr."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    # A pipe has no width: lines are for grep there, so that nothing is folded.
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=stderr, highlight=False, soft_wrap=not stream.isatty(), width=width)
