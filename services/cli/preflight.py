"""`conch preflight`: says before an upgrade what would keep its routes from being served."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conch.v1 import models_pb2
from services.cli import output, pods
from services.cli.failures import FORBIDDEN, NOT_FOUND, USAGE, CliError
from services.cli.output import AsJson

if TYPE_CHECKING:  # pydantic and numpy cost most of the time of `conch --help`
    from services.repository.preflight import Findings, Problem
    from services.repository.settings import PreflightSettings


def preflight(
    routes: Annotated[Path | None, typer.Option(help="Routes as JSON. CONCH_ROUTES_FILE.")] = None,
    pools: Annotated[
        Path | None, typer.Option(help="Pools as JSON: their runtimes by name. Default: CONCH_POOLS itself.")
    ] = None,
    repository: Annotated[
        str | None, typer.Option(help="The model repository. CONCH_REPOSITORY_URI.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check routes before they are rolled out: the pre-upgrade job of a release.

    Every version exists, is complete and certified for its pool, every pool exists and serves the model's
    task, and the weights mean something. Prints a sentence for each problem and ends with 4, with 3 if all
    that is wrong is versions that do not exist, with 5 if the store does not answer.

    Example: conch preflight --routes routes.json --pools pools.json --repository s3://models/repository
    """
    from services.repository.settings import PreflightSettings

    given: dict[str, Any] = {"routes_file": routes, "repository_uri": repository}
    if pools is not None:
        given["pools"] = _json(pools)
    settings = PreflightSettings(**{k: v for k, v in given.items() if v is not None})
    pods.log_to_stderr()
    with pods.explained(settings.termination_log):
        found = _examine(settings)
        problems = [problem for one in found for problem in one.problems]
        if as_json:
            output.print_json(_record(found))
        else:
            output.print_texts(_lines(found))
        if problems:
            raise CliError("\n".join(_refusal(problems)), exit_code=_exit_code(problems))


def _json(path: Path) -> Any:
    try:
        return json.loads(pods.read_text(path))
    except ValueError as error:
        raise CliError(f"{path} is no JSON: {error}", exit_code=USAGE) from error


def _examine(settings: "PreflightSettings") -> "list[Findings]":
    from services import storage
    from services.repository.patience import patiently
    from services.repository.preflight import Findings, examine

    storage.check_uri(settings.resolved_repository_uri(), field="repository")
    routes, problems = _read_routes(settings.routes_file)
    looks = (
        partial(
            examine,
            route,
            settings.pools,
            repository_uri=settings.resolved_repository_uri(),
            allow_uncertified=settings.allow_uncertified,
        )
        for route in routes.routes
    )
    found = [patiently(look, seconds=settings.store_patience_seconds, say=output.remark) for look in looks]
    return [Findings(problems=tuple(problems)), *found]


def _read_routes(path: Path) -> "tuple[models_pb2.Routes, list[Problem]]":
    """Returns the routes and all that is wrong with them alone."""
    from google.protobuf import json_format

    from services import routes as values
    from services.errors import InvalidRequest
    from services.repository.preflight import Problem

    text = pods.read_text(path)
    try:
        return values.parse(text), []
    except InvalidRequest as error:
        violations = error.violations
    try:
        routes = json_format.Parse(text, models_pb2.Routes())
    except json_format.ParseError:
        routes = models_pb2.Routes()
    return routes, [
        Problem(f"{_named(v.field, routes)}: {v.description}", "INVALID_ROUTES") for v in violations
    ]


def _named(field: str, routes: models_pb2.Routes) -> str:
    """Returns a field of the routes with the model's name in the place of its number."""
    for i, route in enumerate(routes.routes):
        if field.startswith(f"routes[{i}]"):
            return f"{route.model or 'a model without name'}{field.removeprefix(f'routes[{i}]')}"
    return field


def _refusal(problems: "Sequence[Problem]") -> Iterator[str]:
    yield f"preflight refuses these routes for {pods.counted(len(problems), 'problem')}:"
    for problem in problems:
        yield f"- {problem.message} ({problem.reason})"


def _exit_code(problems: "Sequence[Problem]") -> int:
    return NOT_FOUND if all(problem.is_missing for problem in problems) else FORBIDDEN


def _record(found: "Sequence[Findings]") -> dict[str, Any]:
    problems = [problem for one in found for problem in one.problems]
    return {
        "ok": not problems,
        "problems": [{"message": p.message, "reason": p.reason} for p in problems],
        "remarks": [remark for one in found for remark in one.remarks],
        "models": sum(1 for one in found if one.versions),
        "versions": sum(len(one.versions) for one in found),
    }


def _lines(found: "Sequence[Findings]") -> Iterator[str]:
    record = _record(found)
    yield from record["remarks"]
    if record["ok"]:
        versions = pods.counted(record["versions"], "version")
        yield f"preflight ok: {versions} of {pods.counted(record['models'], 'model')}"
