"""`conch classify`: ask a model, with texts from the command line, a file or stdin."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from conch.v1 import inference_pb2, models_pb2
from services.cli import output, views
from services.cli.failures import USAGE, CliError
from services.cli.output import AsJson
from services.cli.stubs import Stubs, connect

_BATCH = 64


def classify(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; none: --file, else stdin.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Default: the one that is routed.")] = "",
    version: Annotated[int, typer.Option(min=0, help="Default: the route decides.")] = 0,
    top_k: Annotated[int, typer.Option(min=0, help="Labels wanted; 0 = all.")] = 0,
    pair: Annotated[
        list[str] | None, typer.Option(help="Second text of a pair: one for each text, repeated.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="One text a line; - is stdin.")] = None,
    as_json: AsJson = False,
) -> None:
    """Label texts through the gateway.

    Lines of a file go out in batches of 64; with --json each batch's answer is a line, texts in order.

    Examples:

      conch classify "A film that I will not forget." "Two hours I want back."

      conch classify --model sentiment --file reviews.txt --json
    """
    stubs = connect()
    chosen = texts or _lines(file)
    if not chosen:
        raise CliError("no text: give texts, --file or lines on stdin", exit_code=USAGE)
    request = inference_pb2.ClassifyRequest(
        model=model or _only_routed_model(stubs), version=version, top_k=top_k, text_pairs=pair or []
    )
    for batch in _batches(chosen, len(chosen) if pair else _BATCH):
        del request.texts[:]
        request.texts.extend(batch)
        answer = stubs.inference.Classify(request)
        output.print_result(answer, as_json=as_json, view=views.classifications(batch, answer))


def _lines(file: Path | None) -> list[str]:
    if file is None and sys.stdin.isatty():
        return []
    # Not splitlines(): a text may hold line separators of Unicode.
    lines = _read(file).replace("\r\n", "\n").removesuffix("\n").split("\n")
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            raise CliError(f"line {i} is empty: every line is one text", exit_code=USAGE)
    return lines


def _read(file: Path | None) -> str:
    try:
        data = sys.stdin.buffer.read() if file in (None, Path("-")) else Path(str(file)).read_bytes()
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"cannot read {file or 'stdin'}: {error}", exit_code=USAGE) from None


def _batches(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def _only_routed_model(stubs: Stubs) -> str:
    routes = stubs.models.GetRoutes(models_pb2.GetRoutesRequest()).routes.routes
    if len(routes) != 1:
        names = ", ".join(route.model for route in routes) or "none is routed"
        raise CliError(f"--model is needed: {names}", exit_code=USAGE)
    return routes[0].model
