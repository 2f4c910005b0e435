"""What all verbs that ask a model share: texts from arguments, a file or stdin, and which model is meant.

Knows streams of text and routes; knows nothing about any one rpc.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from conch.v1 import models_pb2
from services.cli import output
from services.cli.failures import USAGE, CliError
from services.cli.models import all_models
from services.cli.stubs import Stubs

BATCH = 64

Texts = Annotated[
    list[str] | None, typer.Argument(help="Texts; none: --file, else stdin.", show_default=False)
]
Model = Annotated[
    str, typer.Option("--model", "-m", help="Default: the only one that is routed.", show_default=False)
]
Version = Annotated[int, typer.Option(min=0, help="Default: the route decides.", show_default=False)]
File = Annotated[Path | None, typer.Option("--file", "-f", help="One text a line; - is stdin.")]


def several(texts: Sequence[str] | None, file: Path | None, *, called: str = "text") -> list[str]:
    """Returns the texts typed, else the lines of `file` or stdin. Raises CliError if there are none."""
    chosen = list(texts or _lines(file))
    if not chosen:
        raise CliError(f"no {called}: give {called}s, --file or lines on stdin", exit_code=USAGE)
    return chosen


def whole(file: Path | None, *, called: str) -> str:
    """Returns all of a file, or of stdin without one. Raises CliError if there is nothing."""
    text = "" if file is None and sys.stdin.isatty() else read(file).strip()
    if not text:
        raise CliError(f"no {called}: type it, or give a file or stdin", exit_code=USAGE)
    return text


def read(file: Path | None) -> str:
    """Returns the text of a file, of stdin for None and "-". Raises CliError if it cannot be read."""
    try:
        data = sys.stdin.buffer.read() if file in (None, Path("-")) else Path(str(file)).read_bytes()
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"cannot read {file or 'stdin'}: {error}", exit_code=USAGE) from None


def batches(texts: Sequence[str], size: int = BATCH) -> Iterator[Sequence[str]]:
    """Yields the texts in calls' worth."""
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def answers(
    rpc: Callable[[Any], Any], request: Any, texts: Sequence[str], size: int = BATCH
) -> Iterator[tuple[Sequence[str], Any]]:
    """Yields the texts of each batch and the answer to the request with them as its `texts`."""
    for batch in batches(texts, size):
        del request.texts[:]
        request.texts.extend(batch)
        yield batch, rpc(request)


def ask(
    rpc: Callable[[Any], Any],
    request: Any,
    texts: Sequence[str],
    *,
    as_json: bool,
    view: Callable[[Sequence[str], Any], RenderableType],
    size: int = BATCH,
) -> None:
    """Sends the request once a batch and prints each answer as it comes."""
    for batch, answer in answers(rpc, request, texts, size):
        output.print_result(answer, as_json=as_json, view=view(batch, answer))


def asked_model(stubs: Stubs, model: str, rpc: str) -> str:
    """Returns the model typed, else the only one that is routed, else the only one that answers `rpc`.

    Raises CliError that names the candidates.
    """
    if model:
        return model
    routes = stubs.models.GetRoutes(models_pb2.GetRoutesRequest()).routes.routes
    routed = [route.model for route in routes]
    found = routed if len(routed) == 1 else _answering(stubs, routed, rpc)
    if len(found) != 1:
        names = ", ".join(found or routed) or "none is routed"
        raise CliError(f"--model is needed: {names}", exit_code=USAGE)
    return found[0]


def _answering(stubs: Stubs, routed: Sequence[str], rpc: str) -> list[str]:
    if not routed:
        return []
    # numpy and tokenizers come along: too much unless there is a choice to make.
    from services.tasks import TASKS

    models = (model for model in all_models(stubs) if model.name in routed)
    return [model.name for model in models if model.task in TASKS and rpc in TASKS[model.task].rpcs]


def _lines(file: Path | None) -> list[str]:
    if file is None and sys.stdin.isatty():
        return []
    # Not splitlines(): a text may hold line separators of Unicode.
    lines = read(file).replace("\r\n", "\n").removesuffix("\n").split("\n")
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            raise CliError(f"line {i} is empty: every line is one text", exit_code=USAGE)
    return lines
