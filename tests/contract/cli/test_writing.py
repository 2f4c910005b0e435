"""generate and chat against a fake gateway: pieces as they come, conversations, Ctrl-C."""

import io
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from conch.errors import Unavailable
from tests.contract.cli.conftest import Conch
from tests.contract.cli.fakes import FakeServices


class Terminal(io.TextIOWrapper):
    """What a person types, as a terminal gives it."""

    def __init__(self, typed: str) -> None:
        super().__init__(io.BytesIO(typed.encode()), encoding="utf-8")

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def answers(services: FakeServices) -> None:
    services.gateway.answer("Once", " upon a time")
    services.gateway.answer("Hello?", "Hello yourself")


def test_a_text_is_alone_on_stdout_and_who_wrote_it_on_stderr(conch: Conch) -> None:
    ran = conch("generate", "Once", "-m", "stories")
    assert (ran.code, ran.stdout) == (0, " upon a time\n")
    assert ran.stderr.startswith("served by stories@1 ")
    assert "3 tokens read, 4 written; ended by STOP" in ran.stderr


def test_json_is_one_object_a_piece(conch: Conch) -> None:
    lines = conch("generate", "Once", "-m", "stories", "--json").lines
    assert [line["piece"]["text"] for line in lines] == [" upon", " a", " time", ""]
    assert lines[-1]["piece"]["finishReason"] == "FINISH_REASON_STOP"


def test_every_sampling_option_arrives(conch: Conch, services: FakeServices, tmp_path: Path) -> None:
    (tmp_path / "schema").write_text('{"type": "object"}', encoding="utf-8")
    options = (
        "--temperature 0 --top-k 5 --top-p 0.5 --min-p 0.25 --repetition-penalty 2 --seed 0 --stop x "
        f"--stop y --max-tokens 9 --min-tokens 1 --logprobs 2 --schema {tmp_path / 'schema'}"
    ).split()
    for verb in ("generate", "chat"):
        assert conch(verb, "Once", "-m", "m", *options).code == 0
    for call in services.gateway.calls:
        sampling = call.request.sampling
        assert (sampling.top_k, sampling.top_p, sampling.min_p, sampling.repetition_penalty) == (
            5,
            0.5,
            0.25,
            2,
        )
        assert (sampling.max_tokens, sampling.min_tokens, sampling.num_logprobs) == (9, 1, 2)
        assert (list(sampling.stop), sampling.json_schema) == (["x", "y"], '{"type": "object"}')
        assert sampling.HasField("temperature")
        assert sampling.HasField("seed")


def test_unset_options_stay_unset(conch: Conch, services: FakeServices) -> None:
    conch("generate", "Once", "-m", "m")
    assert not services.gateway.calls[0].request.sampling.ListFields()


def test_logprobs_are_shown_as_probabilities(conch: Conch) -> None:
    ran = conch("generate", "Once", "-m", "m", "--logprobs", "2")
    assert ran.stdout.startswith(" upon a time\ntoken")
    assert "' upon'" in ran.stdout


def test_the_prompt_may_be_a_file_or_stdin(
    conch: Conch, services: FakeServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompt").write_text("One.\nTwo.\n", encoding="utf-8")
    conch("generate", "-f", str(tmp_path / "prompt"), "-m", "m")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Three.\n")))
    conch("generate", "-m", "m")
    assert [call.request.prompt for call in services.gateway.calls] == ["One.\nTwo.", "Three."]


def test_no_prompt_is_usage(conch: Conch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(""))
    ran = conch("generate", "-m", "m")
    assert (ran.code, ran.stderr) == (2, "conch: no prompt: type it, or give a file or stdin\n")


def test_an_error_in_the_middle_leaves_what_came_and_is_one_line(
    conch: Conch, services: FakeServices
) -> None:
    services.gateway.fail_after(2, Unavailable("Triton went", reason="TRITON_UNAVAILABLE"))
    ran = conch("generate", "Once", "-m", "m")
    assert (ran.code, ran.stdout) == (5, " upon a\n")
    assert ran.stderr == "conch: Triton went (TRITON_UNAVAILABLE)\n"


def test_chat_answers_a_message_once(conch: Conch, services: FakeServices) -> None:
    ran = conch("chat", "Hello?", "-m", "assistant", "--system", "Be brief.")
    assert (ran.code, ran.stdout) == (0, "Hello yourself\n")
    (call,) = services.gateway.calls
    assert [(m.role, m.content) for m in call.request.messages] == [
        ("system", "Be brief."),
        ("user", "Hello?"),
    ]


def test_chat_takes_a_message_from_a_pipe(
    conch: Conch, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"+ a line\n- another\n")))
    assert conch("chat", "-m", "assistant").code == 0
    assert services.gateway.calls[0].request.messages[0].content == "+ a line\n- another"


def test_a_conversation_remembers_what_was_said(
    conch: Conch, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("Hello?\n\nAnd then?\n"))
    ran = conch("chat", "-m", "assistant")
    assert ran.code == 0, ran.stderr
    assert ran.stdout.startswith("Hello yourself\n")
    _, second = services.gateway.calls
    assert [(m.role, m.content) for m in second.request.messages] == [
        ("user", "Hello?"),
        ("assistant", "Hello yourself"),
        ("user", "And then?"),
    ]


def test_an_empty_answer_does_not_stop_a_conversation(
    conch: Conch, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.gateway.answer("Hello?", "")
    monkeypatch.setattr("sys.stdin", Terminal("Hello?\nHello?\n"))
    assert conch("chat", "-m", "assistant").code == 0
    assert len(services.gateway.calls[-1].request.messages) == 1


@pytest.mark.parametrize(
    "arguments", [("generate", "Once"), ("chat", "Hello?"), ("chat", "Hello?", "--json")]
)
def test_ctrl_c_ends_the_call_and_is_130(services: FakeServices, arguments: tuple[str, ...]) -> None:
    services.gateway.delay(0.5)
    # Whoever runs the tests in the background has them ignore SIGINT, and children inherit that.
    heard = ["env", "--default-signal=INT"]
    command = [*heard, sys.executable, "-m", "services.cli", *arguments, "-m", "m"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ)
    assert process.stdout
    first = process.stdout.read1()
    assert first, "pieces are flushed as they come"
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert services.gateway.calls[0].cancelled.wait(10)
    assert b"yourself" not in first + rest
    assert errors == b""


@pytest.mark.timeout(60)
def test_a_conversation_on_a_real_terminal(services: FakeServices) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "services.cli", "chat", "-m", "m"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ)
    os.close(theirs)
    _read_until(ours, b"> ")
    os.write(ours, b"Hello?\n")
    shown = _read_until(ours, b"> ")
    os.write(ours, b"\x04")  # Ctrl-D
    with suppress(OSError):  # the end of a terminal is an error
        while os.read(ours, 4096):
            pass
    assert process.wait(30) == 0
    os.close(ours)
    assert b"Hello yourself" in shown
    assert b"served by m@1" in shown


def _read_until(terminal: int, end: bytes) -> bytes:
    shown = b""
    while end not in shown:
        shown += os.read(terminal, 4096)
    return shown
