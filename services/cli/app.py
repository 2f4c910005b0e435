"""The verbs of `conch`, as typer sees them: what they are called, where their help stands."""

import inspect
from collections.abc import Callable
from typing import Any

import typer

from services.cli import jobs, models
from services.cli.classify import classify
from services.cli.create import convert, train
from services.cli.doctor import doctor
from services.cli.embedding import embed, rank
from services.cli.preflight import preflight
from services.cli.prove import prove
from services.cli.rewriting import summarize, translate
from services.cli.routes import rollback, route
from services.cli.ship import ship
from services.cli.spans import answer, extract
from services.cli.stage import stage
from services.cli.status import status
from services.cli.up import down, up
from services.cli.writing import chat, generate

Verb = Callable[..., Any]

_HELP = """Labelled text to a typed gRPC answer.

    [bold]conch up --detach[/bold]: start everything here

    [bold]conch ship reviews.csv --model sentiment --base-model ./minilm[/bold]: train, prove, serve

    [bold]conch classify "A film that I will not forget."[/bold]: ask
"""
_CODES = "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 wrong state, 5 try again, 130 Ctrl-C."
_SERVICES, _MAKING, _SERVING, _ASKING, _PODS = (
    "The services of this machine",
    "Making versions",
    "Serving them",
    "Asking them",
    "Containers of a cluster",
)

app = typer.Typer(
    name="conch",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help=_HELP,
    epilog=_CODES,
)


def _add(panel: str, *verbs: Verb) -> None:
    for verb in verbs:
        app.command(help=_help(verb), rich_help_panel=panel)(verb)


def _add_group(panel: str, name: str, alone: Verb, verbs: dict[str, Verb]) -> None:
    group = typer.Typer(invoke_without_command=True)
    group.callback(help=_help(alone))(alone)
    for verb_name, verb in verbs.items():
        group.command(verb_name, help=_help(verb))(verb)
    app.add_typer(group, name=name, rich_help_panel=panel)


def _help(verb: Verb) -> str:
    """Returns the docstring with each paragraph on one line, so that the terminal wraps it and we do not."""
    paragraphs = inspect.cleandoc(verb.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


_add(_SERVICES, up, status, down, doctor)
_add(_MAKING, ship, train, convert, jobs.watch)
_add_group(
    _MAKING,
    "jobs",
    jobs.jobs,
    {"list": jobs.list_jobs, "get": jobs.get, "cancel": jobs.cancel, "delete": jobs.delete},
)
_add(_SERVING, route, rollback)
_add_group(_SERVING, "models", models.models, {"list": models.list_models, "show": models.show})
_add(_ASKING, classify, extract, answer, embed, rank, translate, summarize, generate, chat)
_add(_PODS, preflight, stage, prove)
