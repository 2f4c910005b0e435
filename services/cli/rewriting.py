"""`conch translate` and `conch summarize`: texts made of texts.

What the model wrote is on stdout, one after the other, and who answered on stderr: made for pipes.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from conch.v1 import inference_pb2
from services.cli import answers_views, output
from services.cli.asking import File, Model, Texts, Version, answers, asked_model, read, several
from services.cli.options import takes
from services.cli.output import AsJson
from services.cli.specs import Option, Whole
from services.cli.stubs import connect

_SEARCH = "Search"
# A text takes seconds here: many in one call would only wait for each other.
_BATCH = 16


@dataclass(frozen=True)
class SearchOptions:
    """How sequences are searched for; 0 and unset mean the model's own."""

    num_beams: Annotated[int, Whole(help="Beams; 1 = greedy.", rich_help_panel=_SEARCH)] = 0
    max_new_tokens: Annotated[int, Whole(help="Most tokens of an answer.", rich_help_panel=_SEARCH)] = 0
    min_new_tokens: Annotated[int, Whole(help="Fewest tokens of an answer.", rich_help_panel=_SEARCH)] = 0
    length_penalty: Annotated[
        float | None, Option(help="Above 1 favours long answers; for beams.", rich_help_panel=_SEARCH)
    ] = None
    no_repeat_ngram_size: Annotated[
        int, Whole(help="No so many tokens in a row occur twice.", rich_help_panel=_SEARCH)
    ] = 0

    def message(self) -> inference_pb2.SearchOptions:
        """Returns the options as the contract has them."""
        return inference_pb2.SearchOptions(**asdict(self))


@takes(search=SearchOptions)
def translate(
    search: SearchOptions,
    texts: Texts = None,
    model: Model = "",
    version: Version = 0,
    source: Annotated[
        str,
        Option("--from", help="Language of the texts, as in en; needed if the model knows several pairs."),
    ] = "",
    target: Annotated[str, Option("--to", help="Language wanted, likewise.")] = "",
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Translate texts; translations go to stdout, one after the other.

    Lines of a file go out in batches of 16; with --json each batch's answer is a line.

    Examples:

      conch translate "The sea is calm." --from en --to de

      conch translate --model en-de --file letter.txt --num-beams 4 > brief.txt
    """
    stubs = connect()
    chosen = several(texts, file)
    request = inference_pb2.TranslateRequest(
        model=asked_model(stubs, model, "Translate"),
        version=version,
        source_language=source,
        target_language=target,
        options=search.message(),
    )
    _write(stubs.inference.Translate, request, chosen, "translations", as_json=as_json)


@takes(search=SearchOptions)
def summarize(
    search: SearchOptions,
    texts: Texts = None,
    model: Model = "",
    version: Version = 0,
    document: Annotated[
        list[Path] | None,
        typer.Option("--document", "-d", help="A text of its own, all of a file, repeated; - is stdin."),
    ] = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Summarize texts; summaries go to stdout, one after the other.

    Lines of a --file are texts of their own and go out in batches of 16; a --document is one text.

    Examples:

      conch summarize --document article.txt

      pdftotext report.pdf - | conch summarize --model news --document - --max-new-tokens 80

      conch summarize --file abstracts.txt --json
    """
    stubs = connect()
    chosen = [*(texts or []), *map(read, document or [])] or several(None, file)
    request = inference_pb2.SummarizeRequest(
        model=asked_model(stubs, model, "Summarize"), version=version, options=search.message()
    )
    _write(stubs.inference.Summarize, request, chosen, "summaries", as_json=as_json)


def _write(
    rpc: Callable[[Any], Any], request: Any, texts: Sequence[str], field: str, *, as_json: bool
) -> None:
    for _, answer in answers(rpc, request, texts, _BATCH):
        if as_json:
            output.print_json(answer)
            continue
        output.print_texts([written.text for written in getattr(answer, field)])
        output.remark(answers_views.written(getattr(answer, field), answer))
