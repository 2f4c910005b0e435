"""`conch route` and `conch rollback`: which versions answer, and the way back."""

import getpass
import socket
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from conch.v1 import models_pb2
from services.cli import output, views
from services.cli.failures import FORBIDDEN, NOT_FOUND, USAGE, CliError
from services.cli.output import AsJson
from services.cli.stubs import Stubs, connect

_ROLLBACK = "rollback to change "
Reason = Annotated[str, typer.Option(help="Why, for the ledger.")]


def route(
    model: Annotated[str, typer.Argument(help="The model; default: show all routes.")] = "",
    versions: Annotated[
        list[str] | None,
        typer.Argument(help="version=weight, or one version for all calls. None: show the route."),
    ] = None,
    shadow: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="VERSION",
            help="Send this version a copy of each call and throw its answers away: it meets real traffic "
            "before it has a share of it. Not given: no shadow.",
            show_default=False,
        ),
    ] = None,
    pool: Annotated[
        str, typer.Option(metavar="NAME", help="Pool of servers. Not given: the one that holds.")
    ] = "",
    history: Annotated[bool, typer.Option("--history", help="Show the ledger instead.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Show routes, or send a model's calls to versions by weight.

    A new route takes hold once every version in it is loaded and proven; until then the old one answers.

    Examples:

      conch route

      conch route sentiment 4

      conch route sentiment 3=100 --shadow 4 --reason "watch 4 before it answers"

      conch route sentiment 3=90 4=10 --reason "canary of 4"

      conch route sentiment --history
    """
    stubs = connect()
    if versions:
        weighted = [_weighted(text, versions) for text in versions]
        new = models_pb2.Route(model=model, versions=weighted, pool=pool, shadow=shadow or 0)
        return print_change(set_route(stubs, new, reason), as_json=as_json)
    if shadow or pool:
        raise CliError("--shadow and --pool are of a route: say its versions, too", exit_code=USAGE)
    return _show_history(stubs, model, as_json=as_json) if history else _show(stubs, model, as_json=as_json)


def rollback(
    model: Annotated[str, typer.Argument(help="The model.", show_default=False)],
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Bring back the route that held before the one that holds now; again goes one further back.

    Example: conch rollback sentiment --reason "4 confuses refunds"
    """
    stubs = connect()
    target = previous_change(list(ledger(stubs, model)))
    if target is None:
        raise CliError(f"model {model} has no earlier route to go back to", exit_code=FORBIDDEN)
    why = f"{_ROLLBACK}{target.sequence}" + (f": {reason}" if reason else "")
    print_change(set_route(stubs, target.after, why), as_json=as_json)


def set_route(stubs: Stubs, new: models_pb2.Route, reason: str) -> models_pb2.RouteChange:
    """Sets a route in this user's name and returns the ledger's new line."""
    actor = f"{getpass.getuser()}@{socket.gethostname()}"
    request = models_pb2.SetRouteRequest(route=new, actor=actor, reason=reason)
    return stubs.models.SetRoute(request).change


def current_route(stubs: Stubs, model: str) -> models_pb2.Route | None:
    """Returns the model's route, None if it has none."""
    found = stubs.models.GetRoutes(models_pb2.GetRoutesRequest()).routes.routes
    return next((one for one in found if one.model == model), None)


def ledger(stubs: Stubs, model: str = "") -> Iterator[models_pb2.RouteChange]:
    """Yields the changes of one model's route, or of all, newest first."""
    token = ""
    while True:
        request = models_pb2.ListRouteChangesRequest(model=model, page_size=1000, page_token=token)
        page = stubs.models.ListRouteChanges(request)
        yield from page.changes
        token = page.next_page_token
        if not token:
            return


def previous_change(changes: Sequence[models_pb2.RouteChange]) -> models_pb2.RouteChange | None:
    """Returns the change whose route a rollback brings back, None if there is none.

    A rollback undoes changes and does not count as one: after it, the next goes back further.
    """
    stack: list[models_pb2.RouteChange] = []
    for change in reversed(changes):
        target = _rollback_target(change)
        kept = [earlier for earlier in stack if earlier.sequence <= target]
        stack = kept if target and kept else [*stack, change]
    return stack[-2] if len(stack) > 1 else None


def print_change(change: models_pb2.RouteChange, *, as_json: bool) -> None:
    """Prints the ledger's new line."""
    model = change.after.model
    # A cluster's ledger is written in the background, when its API server answers.
    number = f"change {change.sequence}" if change.sequence else "not in the ledger yet"
    line = f"{model}: {views.route(change.before)} -> {views.route(change.after)} ({number})"
    output.print_result(change, as_json=as_json, view=line)


def _rollback_target(change: models_pb2.RouteChange) -> int:
    if not change.reason.startswith(_ROLLBACK):
        return 0
    number = change.reason.removeprefix(_ROLLBACK).partition(":")[0]
    return int(number) if number.isdecimal() else 0


def _show(stubs: Stubs, model: str, *, as_json: bool) -> None:
    routes = stubs.models.GetRoutes(models_pb2.GetRoutesRequest()).routes
    if not model:
        return output.print_result(routes, as_json=as_json, view=views.routes(routes.routes))
    one = next((r for r in routes.routes if r.model == model), None)
    if one is None:
        raise CliError(
            f"no route of model {model}; set one: conch route {model} VERSION", exit_code=NOT_FOUND
        )
    return output.print_result(one, as_json=as_json, view=views.routes([one]))


def _show_history(stubs: Stubs, model: str, *, as_json: bool) -> None:
    changes = list(ledger(stubs, model))
    if not as_json:
        return output.print_result({}, as_json=False, view=views.changes(changes))
    for change in changes:
        output.print_json(change)
    return None


def _weighted(text: str, given: Sequence[str]) -> models_pb2.WeightedVersion:
    version, equals, weight = text.partition("=")
    alone = not equals and len(given) == 1
    if not version.isdecimal() or not (weight.isdecimal() or alone):
        raise CliError(f"{text!r}: write version=weight, as in 3=90 4=10", exit_code=USAGE)
    return models_pb2.WeightedVersion(version=int(version), weight=100 if alone else int(weight))
