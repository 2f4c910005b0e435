"""The verbs of `conch`, as typer sees them."""

from collections.abc import Callable

import typer

from services.cli.classify import classify
from services.cli.create import convert, train
from services.cli.doctor import doctor
from services.cli.jobs import jobs, watch
from services.cli.models import models
from services.cli.routes import rollback, route
from services.cli.ship import ship
from services.cli.up import down, status, up

_SERVICES, _MAKING, _SERVING = "The services of this machine", "Making versions", "Serving them"

app = typer.Typer(
    name="conch",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 wrong state, 5 try again, 130 Ctrl-C.",
    help="""Labelled text to a typed gRPC answer.

    [bold]conch up --detach[/bold]   starts everything here

    [bold]conch ship reviews.csv --model sentiment --base-model ./minilm[/bold]   trains, proves, serves

    [bold]conch classify "A film that I will not forget."[/bold]   asks
    """,
)

_VERBS: dict[str, tuple[Callable[..., None], ...]] = {
    _SERVICES: (up, status, down, doctor),
    _MAKING: (ship, train, convert, watch),
    _SERVING: (classify, route, rollback),
}
for panel, verbs in _VERBS.items():
    for verb in verbs:
        app.command(rich_help_panel=panel)(verb)
app.add_typer(jobs, name="jobs", rich_help_panel=_MAKING)
app.add_typer(models, name="models", rich_help_panel=_SERVING)
