"""Messages as people read them: rich tables and sentences. Calls nothing, prints nothing."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from conch.errors import from_status
from conch.v1 import job_pb2, models_pb2, tasks_pb2
from services.cli.failures import describe
from services.cli.job_kinds import Job
from services.targets import precision_name, runtime_name, target_name


def table(*columns: str) -> Table:
    """Returns an empty table without lines, good to read and to cut."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def state_name(state: int) -> str:
    """Returns SUCCEEDED for STATE_SUCCEEDED."""
    return job_pb2.JobStatus.State.Name(job_pb2.JobStatus.State.ValueType(state)).removeprefix("STATE_")


def jobs(found: Iterable[tuple[str, Job]]) -> RenderableType:
    """Returns one line a job."""
    lines = table("id", "kind", "state", "attempt", "created", "result")
    for kind, job in found:
        status = job.status
        attempt = f"{status.attempt}/{status.max_attempts}"
        created = when(status.create_time)
        lines.add_row(job.id, kind, state_name(status.state), attempt, created, outcome(job))
    return lines


def outcome(job: Job) -> str:
    """Returns what came of a job, in a few words."""
    if job.status.state == job_pb2.JobStatus.STATE_FAILED:
        return describe(from_status(job.status.error))
    if job.status.state != job_pb2.JobStatus.STATE_SUCCEEDED:
        return "cancelling" if job.status.cancel_requested and not job.status.HasField("end_time") else ""
    if job.DESCRIPTOR.name == "TrainingJob":
        return f"{metrics(job.result.evaluation, most=2)}  {job.result.checkpoint_uri}"
    return f"{job.result.model} version {job.result.version}"


def job(kind: str, one: Job) -> RenderableType:
    """Returns everything about one job."""
    status = one.status
    rows = table("job", one.id)
    rows.add_row("kind", kind)
    rows.add_row("state", state_name(status.state))
    rows.add_row("attempt", f"{status.attempt} of {status.max_attempts}")
    for name in ("create_time", "start_time", "end_time"):
        if status.HasField(name):
            rows.add_row(name.removesuffix("_time"), when(getattr(status, name)))
    rows.add_row("events", str(status.last_sequence))
    rows.add_row("result", outcome(one))
    if one.DESCRIPTOR.name == "ConversionJob" and one.HasField("result"):
        return Group(rows, "", verdicts(one.result.certificate.verdicts))
    return rows


def metrics(evaluation: job_pb2.Evaluation, *, most: int | None = None) -> str:
    """Returns the metrics, or the `most` important: accuracy and F1 first, loss last."""
    order = sorted(evaluation.metrics, key=lambda n: (n == "loss", n != "accuracy", "f1" not in n, n))
    return " ".join(f"{name} {evaluation.metrics[name]:.4f}" for name in order[:most])


def verdicts(found: Sequence[job_pb2.Verdict]) -> RenderableType:
    """Returns one line a figure of a certificate."""
    lines = table("runtime", "precision", "figure", "value", "limit", "passed")
    for verdict in found:
        for figure in verdict.figures:
            passed = Text("yes", "green") if figure.passed else Text("no", "red")
            value, limit = f"{figure.value:.3g}", f"{figure.limit:.3g}"
            lines.add_row(
                runtime_name(verdict.runtime),
                precision_name(verdict.precision),
                figure.name,
                value,
                limit,
                passed,
            )
    return lines


def verdict_line(verdict: job_pb2.Verdict) -> str:
    """Returns one runtime's proof on one line."""
    figures = ", ".join(
        f"{f.name} {f.value:.3g} ({'<=' if f.passed else 'ABOVE'} {f.limit:.3g})" for f in verdict.figures
    )
    word = "certified" if verdict.passed else "not certified"
    name = target_name(verdict.runtime, verdict.precision)
    return f"{name} {word} on {verdict.num_examples} examples: {figures}"


def models(found: Iterable[models_pb2.Model]) -> RenderableType:
    """Returns one line a model."""
    lines = table("model", "task", "versions", "route")
    for model in found:
        numbers = ", ".join(str(v) for v in model.versions)
        lines.add_row(model.name, model.task, numbers, route(model.route))
    return lines


def version(found: models_pb2.Version) -> RenderableType:
    """Returns a version's state, provenance and certificate."""
    manifest = found.manifest
    checkpoint = manifest.checkpoint
    rows = table("version", f"{found.model} {found.version}")
    state = models_pb2.Version.State.Name(found.state).removeprefix("STATE_")
    rows.add_row("state", f"{state} {found.state_reason}".strip())
    rows.add_row("folder", found.uri)
    rows.add_row("digest", found.digest)
    rows.add_row("task", checkpoint.task)
    rows.add_row("labels", ", ".join(checkpoint.labels))
    rows.add_row("task's own", _choices(checkpoint.task_spec))
    rows.add_row("trained", f"{checkpoint.training_job} from {checkpoint.base_model}")
    rows.add_row("held out", metrics(checkpoint.evaluation))
    rows.add_row("converted", f"{manifest.conversion_job} from {manifest.checkpoint_uri}")
    return Group(rows, "", verdicts(found.certificate.verdicts))


def _choices(spec: tasks_pb2.TaskSpec) -> str:
    """Returns what only the task knows, without the labels."""
    kind = spec.WhichOneof("kind")
    chosen = json_format.MessageToDict(getattr(spec, kind), preserving_proto_field_name=True) if kind else {}
    return " ".join(f"{name}={value}" for name, value in chosen.items() if name != "labels")


def route(found: models_pb2.Route) -> str:
    """Returns `3=90 4=10 shadow 5 in cpu`, or `none`."""
    words = [f"{v.version}={v.weight}" for v in found.versions]
    if not words:
        return "none"
    words += [f"shadow {found.shadow}"] if found.shadow else []
    words += [f"in {found.pool}"] if found.pool else []
    return " ".join(words)


def routes(found: Iterable[models_pb2.Route]) -> RenderableType:
    """Returns one line a routed version with its share, and one for a shadow that is none of them."""
    lines = table("model", "version", "weight", "share", "pool")
    for one in found:
        total = sum(v.weight for v in one.versions) or 1
        for v in one.versions:
            share = "shadow" if v.version == one.shadow else f"{v.weight / total:.0%}"
            lines.add_row(one.model, str(v.version), str(v.weight), share, one.pool)
        if one.shadow and one.shadow not in [v.version for v in one.versions]:
            lines.add_row(one.model, str(one.shadow), "", "shadow", one.pool)
    return lines


def changes(found: Iterable[models_pb2.RouteChange]) -> RenderableType:
    """Returns one line a change of the ledger."""
    lines = table("change", "time", "model", "before", "after", "by", "why")
    for c in found:
        before, after = route(c.before), route(c.after)
        lines.add_row(str(c.sequence), when(c.time), c.after.model, before, after, c.actor, c.reason)
    return lines


def when(time: Timestamp) -> str:
    """Returns a local time to the second."""
    return time.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def shorten(text: str, length: int = 60) -> str:
    """Returns the text on one line, cut to `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def since(started: float) -> str:
    """Returns how long ago a time (seconds since the epoch) was."""
    seconds = int((datetime.now(UTC) - datetime.fromtimestamp(started, UTC)).total_seconds())
    return (
        f"{seconds // 3600}h{seconds % 3600 // 60:02}m"
        if seconds >= 3600
        else f"{seconds // 60}m{seconds % 60:02}s"
    )
