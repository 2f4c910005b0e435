"""`conch ship`: a data file becomes an answering version, in one line.

Train, convert, route, ready. Each part is a job with an id of its own, so that the same line with the same
--id goes on where an earlier one stopped.
"""

from typing import Annotated, Any

import typer
from rich.console import Group

from conch.v1 import conversion_pb2, models_pb2, training_pb2
from services.cli import output, views
from services.cli.conversion_specs import ConversionOptions, conversion_spec
from services.cli.failures import INTERRUPTED, CliError
from services.cli.following import follow, require_success
from services.cli.job_kinds import JobKind, conversion, training
from services.cli.options import takes
from services.cli.output import AsJson
from services.cli.routes import current_route, set_route
from services.cli.specs import new_id
from services.cli.stubs import Stubs, connect
from services.cli.training_specs import TrainingOptions, training_spec


@takes(training_options=TrainingOptions, conversion_options=ConversionOptions)
def ship(
    data: Annotated[str, typer.Argument(help="The data: a path or a URI, see --format.")],
    training_options: TrainingOptions,
    conversion_options: ConversionOptions,
    id: Annotated[str, typer.Option("--id", help="Names the run; the same id continues it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Train, convert, prove, publish and route a model: from a data file to typed answers.

    Stopped in the middle? The same line with the --id that it printed goes on where it was. With --json the
    progress is on stderr and one object on stdout: trainingJob, conversionJob, route.

    Examples:

      conch ship reviews.csv --model sentiment --base-model ./minilm

      conch ship reviews.csv -m sentiment -b ./minilm --epochs 1 --id reviews-august --json

      conch ship places.conll -m places -b ./minilm --task token-classification --option stride=32
    """
    wanted = training_spec(data, training_options)
    proof = conversion_spec("", conversion_options)
    run = id or new_id(proof.model)
    if not id:
        output.remark(f"run {run}; should it stop, the same line with --id {run} continues it")
    stubs = connect()
    trained = _finish(training(stubs), run, wanted, run)
    proof.checkpoint_uri = trained.result.checkpoint_uri
    converted = _finish(conversion(stubs), f"{run}-convert", proof, run)
    route = _routed(stubs, converted.result, run)
    _report(trained, converted, route, as_json=as_json)


def _finish(kind: JobKind, job_id: str, spec: Any, run: str) -> Any:
    """Creates the job or joins it, and returns it once it SUCCEEDED."""
    job = kind.create(job_id, spec)
    try:
        return require_success(kind, follow(kind, job.id))
    except CliError as error:
        if error.exit_code != INTERRUPTED:
            raise
        message = f"detached, the {kind.name} job goes on; continue: the same line with --id {run}"
        raise CliError(message, exit_code=INTERRUPTED) from None


def _routed(stubs: Stubs, result: conversion_pb2.ConversionResult, run: str) -> models_pb2.Route:
    """Returns the model's route once the new version alone answers; a route that says so already stays."""
    wanted = models_pb2.Route(
        model=result.model, versions=[models_pb2.WeightedVersion(version=result.version, weight=100)]
    )
    held = current_route(stubs, result.model)
    if held and list(held.versions) == list(wanted.versions):
        return held
    output.remark(f"routing {result.model} to version {result.version}: staging, loading, proving")
    return set_route(stubs, wanted, f"shipped by run {run}").after


def _report(
    trained: training_pb2.TrainingJob,
    converted: conversion_pb2.ConversionJob,
    route: models_pb2.Route,
    *,
    as_json: bool,
) -> None:
    # numpy and tokenizers come along: too much for `conch --help`.
    from services.tasks import find_task

    result = converted.result
    summary = {
        "trainingJob": output.as_dict(trained),
        "conversionJob": output.as_dict(converted),
        "route": output.as_dict(route),
    }
    lines = (
        f"held out  {views.metrics(trained.result.evaluation)}",
        *(f"proof     {views.verdict_line(verdict)}" for verdict in result.certificate.verdicts),
        f"ready     {result.model} version {result.version} digest {result.digest[:12]}",
        f"ask it    conch {find_task(trained.spec.task).ask.format(model=result.model)}",
    )
    output.print_result(summary, as_json=as_json, view=Group(*lines))
