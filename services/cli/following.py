"""Follows a job to its end and says how it ended. Ctrl-C leaves the job running and says how to come back."""

from conch.errors import from_status
from conch.v1 import job_pb2
from services.cli import failures, output, views
from services.cli.failures import INTERRUPTED, CliError
from services.cli.job_kinds import Job, JobKind
from services.cli.progress import showing


def follow(kind: JobKind, job_id: str, *, from_sequence: int = 1, as_json: bool = False) -> Job:
    """Shows the job's events until its final state and returns the job.

    With `as_json` every event is a line of JSON on stdout; else a bar and lines on stderr.
    """
    try:
        if as_json:
            for event in kind.follow(job_id, from_sequence=from_sequence, on_break=_say_break):
                output.print_json(event)
        else:
            _show(kind, job_id, from_sequence)
    except KeyboardInterrupt:
        hint = f"conch watch {job_id}" + (" --kind conversion" if kind.name == "conversion" else "")
        raise CliError(f"detached, the job goes on; watch it again: {hint}", exit_code=INTERRUPTED) from None
    return kind.get(job_id)


def require_success(kind: JobKind, job: Job) -> Job:
    """Returns the job if it SUCCEEDED. Raises CliError (exit code 1) that says why not."""
    state = job.status.state
    if state == job_pb2.JobStatus.STATE_SUCCEEDED:
        return job
    why = failures.describe(from_status(job.status.error)) if job.status.HasField("error") else ""
    word = views.state_name(state)
    raise CliError(f"{kind.name} job {job.id} {word}{': ' if why else ''}{why}")


def _show(kind: JobKind, job_id: str, from_sequence: int) -> None:
    with showing(f"{kind.name} {job_id}") as display:
        for event in kind.follow(job_id, from_sequence=from_sequence, on_break=_say_break):
            display.show(event)


def _say_break(why: str) -> None:
    output.remark(f"the stream broke ({why.splitlines()[0][:100]}); trying again")
