"""`conch jobs` and `conch watch`: look at jobs, stop them, delete them, follow them."""

from typing import Annotated

import typer

from conch.v1 import job_pb2
from services.cli import output, views
from services.cli.failures import USAGE, CliError
from services.cli.following import follow, require_success
from services.cli.job_kinds import Job, JobKind, find, kinds
from services.cli.output import AsJson
from services.cli.stubs import connect

JobId = Annotated[str, typer.Argument(help="Id of the job.", show_default=False)]
Kind = Annotated[str, typer.Option(help="training or conversion, where both have a job of this id.")]
_STATES = {
    name.removeprefix("STATE_").lower(): value for name, value in job_pb2.JobStatus.State.items() if value
}


def jobs(context: typer.Context, as_json: AsJson = False) -> None:
    """List, show, cancel and delete jobs of both kinds; alone it lists the newest.

    Examples:

      conch jobs

      conch jobs list --state running --json

      conch jobs get reviews-3fa9c1

      conch jobs cancel reviews-3fa9c1
    """
    if context.invoked_subcommand is None:
        list_jobs(as_json=as_json)


def list_jobs(
    kind: Annotated[str, typer.Option(help="Only training or only conversion jobs.")] = "",
    state: Annotated[
        list[str] | None, typer.Option(help=f"Only jobs in this state, repeated: {', '.join(_STATES)}.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Jobs of each kind, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first; with --json one job a line.

    Example: conch jobs list --kind training --state failed
    """
    states = [_state(name) for name in state or []]
    found = [(k.name, job) for k in kinds(connect(), kind) for job in k.list(states, limit)]
    found.sort(key=lambda pair: pair[1].status.create_time.ToNanoseconds(), reverse=True)
    if not as_json:
        return output.print_result({}, as_json=False, view=views.jobs(found))
    for name, job in found:
        output.print_json({"kind": name, **output.as_dict(job)})
    return None


def get(id: JobId, kind: Kind = "", as_json: AsJson = False) -> None:
    """Show one job: state, attempts, metrics or why it failed.

    Example: conch jobs get reviews-3fa9c1 --json
    """
    found, job = find(connect(), id, kind)
    output.print_result(job, as_json=as_json, view=views.job(found.name, job))


def cancel(id: JobId, kind: Kind = "", as_json: AsJson = False) -> None:
    """Ask a job to stop; a training job writes a checkpoint first.

    Example: conch jobs cancel reviews-3fa9c1
    """
    found, _ = find(connect(), id, kind)
    job = found.cancel(id)
    output.print_result(job, as_json=as_json, view=views.job(found.name, job))


def delete(id: JobId, kind: Kind = "", as_json: AsJson = False) -> None:
    """Delete an ended job with its events; checkpoints and published versions stay.

    Example: conch jobs delete reviews-3fa9c1
    """
    found, _ = find(connect(), id, kind)
    found.delete(id)
    output.print_result(
        {"deleted": id, "kind": found.name}, as_json=as_json, view=f"deleted {found.name} job {id}"
    )


def watch(
    id: JobId,
    kind: Kind = "",
    from_sequence: Annotated[int, typer.Option(min=1, help="First event wanted.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Follow a job: a bar with loss and time left, a line for whatever matters; Ctrl-C detaches.

    With --json each event is a line, the job itself the last. Exit code 1 if the job does not succeed.

    Examples:

      conch watch reviews-3fa9c1

      conch watch reviews-3fa9c1 --json | jq -r 'select(.trainingStep).trainingStep.loss'
    """
    found, _ = find(connect(), id, kind)
    job = _followed(found, id, from_sequence, as_json=as_json)
    require_success(found, job)


def _followed(kind: JobKind, job_id: str, from_sequence: int, *, as_json: bool) -> Job:
    job = follow(kind, job_id, from_sequence=from_sequence, as_json=as_json)
    output.print_result(job, as_json=as_json, view=views.job(kind.name, job))
    return job


def _state(name: str) -> int:
    try:
        return _STATES[name.lower().removeprefix("state_")]
    except KeyError:
        raise CliError(f"--state {name!r}: one of {', '.join(_STATES)}", exit_code=USAGE) from None
