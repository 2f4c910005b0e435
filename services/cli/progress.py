"""A job's events as a person follows them: a bar with loss and time left, and a line for what matters.

Everything goes to stderr. Knows events; knows nothing about where they come from.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from conch.v1 import job_pb2
from services.cli import views
from services.cli.output import remarks

_PLAIN_LINES = 20


class JobProgress:
    """Shows one job; without a terminal it prints a line now and then instead of a bar."""

    def __init__(self, name: str, console: Console, bar: Progress) -> None:
        self._name = name
        self._console = console
        self._bar = bar
        self._task: TaskID | None = None
        self._shown = -1

    def show(self, event: job_pb2.JobEvent) -> None:
        """Shows one event."""
        kind = event.WhichOneof("event")
        if kind == "training_step":
            self._step(event.training_step)
        elif line := _line(event):
            self._say(line)

    def _step(self, step: job_pb2.TrainingStep) -> None:
        facts = f"loss {step.loss:.4f}  {_remaining(step)}"
        if self._console.is_terminal:
            if self._task is None:
                self._task = self._bar.add_task(self._name, total=step.num_steps, facts=facts)
            self._bar.update(self._task, completed=step.step, total=step.num_steps, facts=facts)
        elif self._is_due(step):
            self._say(f"step {step.step}/{step.num_steps}  {facts}")

    def _is_due(self, step: job_pb2.TrainingStep) -> bool:
        part = step.step * _PLAIN_LINES // max(1, step.num_steps)
        due, self._shown = part != self._shown, part
        return due

    def _say(self, line: str) -> None:
        self._console.print(f"{self._name}: {line}", markup=False)


@contextmanager
def showing(name: str) -> Iterator[JobProgress]:
    """Gives a display of one job on stderr for as long as the block runs."""
    console = remarks()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield JobProgress(name, console, bar)


def _line(event: job_pb2.JobEvent) -> str:
    """Returns what a person should read of an event, empty if nothing."""
    lines: dict[str, Callable[[job_pb2.JobEvent], str]] = {
        "state_changed": _state_line,
        "stage_started": _stage_line,
        "evaluation": _evaluation_line,
        "warning": lambda e: f"warning: {e.warning.message} ({e.warning.reason})",
        "artifact_written": lambda e: f"{e.artifact_written.kind} written: {e.artifact_written.uri}",
        "verdict": lambda e: views.verdict_line(e.verdict),
    }
    describe = lines.get(event.WhichOneof("event") or "")
    return describe(event) if describe else ""


def _state_line(event: job_pb2.JobEvent) -> str:
    change = event.state_changed
    return f"{views.state_name(change.state)} {change.reason}".strip()


def _stage_line(event: job_pb2.JobEvent) -> str:
    stage = event.stage_started
    return f"[{stage.index}/{stage.num_stages}] {stage.name}"


def _evaluation_line(event: job_pb2.JobEvent) -> str:
    evaluation = event.evaluation
    return f"{evaluation.split} at step {evaluation.step}: {views.metrics(evaluation)}"


def _remaining(step: job_pb2.TrainingStep) -> str:
    seconds = max(0, round(step.time_remaining.ToMilliseconds() / 1000))
    return f"{step.examples_per_second:.1f} examples/s  {seconds // 60}:{seconds % 60:02} left"
