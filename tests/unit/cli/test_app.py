"""Conventions that every verb keeps."""

import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from services.cli.__main__ import main
from services.cli.app import app
from services.tasks import TASKS, Task

HEAVY = {"torch", "transformers", "numpy", "sqlalchemy", "tritonclient", "pydantic", "openvino"}


# Runs until it is stopped; what it has to tell is its health.
WITHOUT_RESULT = [["prove"]]


def verbs() -> Iterator[tuple[list[str], object]]:
    """Yields path and command of every verb, groups themselves included."""
    waiting: list[tuple[list[str], object]] = [([], typer.main.get_command(app))]
    while waiting:
        path, command = waiting.pop()
        waiting += [([*path, name], sub) for name, sub in getattr(command, "commands", {}).items()]
        if path:
            yield path, command


@pytest.mark.parametrize(
    ("path", "command"), list(verbs()), ids=lambda value: "-".join(value) if isinstance(value, list) else ""
)
def test_every_verb_has_json_and_a_help_with_an_example(
    path: list[str], command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {name for parameter in command.params for name in parameter.opts}  # type: ignore[attr-defined]
    assert "--json" in options or path in WITHOUT_RESULT
    assert main([*path, "--help"]) == 0
    assert f"conch {path[0]}" in capsys.readouterr().out.split("Usage:")[1].split("\n", 1)[1]


def test_the_verbs_are_the_ones_promised() -> None:
    promised = (
        "up status down doctor ship train convert jobs watch models route rollback "
        "classify extract answer embed rank translate summarize generate chat preflight stage prove"
    )
    assert {path[0] for path, _ in verbs()} == set(promised.split())


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.id)
def test_what_a_task_says_of_how_to_ask_it_can_be_typed(task: Task) -> None:
    verb, *arguments = shlex.split(task.ask.format(model="m"))
    command = dict((path[0], command) for path, command in verbs())[verb]
    assert command.make_context(verb, arguments).params["model"] == "m"  # type: ignore[attr-defined]


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, services.cli.__main__; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(loaded.split())


def test_a_verb_that_does_not_exist_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fly"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_a_bug_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("no")

    monkeypatch.setattr("services.cli.stubs.connect", broken)
    monkeypatch.setattr("services.cli.models.connect", broken)
    assert main(["models"]) == 70
    assert capsys.readouterr().err == "conch: this is a bug of conch: ZeroDivisionError: no\n"
