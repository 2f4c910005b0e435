"""`conch generate` and `conch chat`: texts that appear as they are written.

The text alone is on stdout, who answered on stderr. Ctrl-C ends the call, at the gateway too.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from conch.v1 import inference_pb2
from services.cli import answers_views, output
from services.cli.asking import Model, Version, asked_model, whole
from services.cli.options import takes
from services.cli.output import AsJson
from services.cli.sampling import Sampling
from services.cli.specs import Option
from services.cli.stubs import connect


@takes(sampling=Sampling)
def generate(
    sampling: Sampling,
    prompt: Annotated[
        str, typer.Argument(help="The prompt; none: --file, else stdin.", show_default=False)
    ] = "",
    model: Model = "",
    version: Version = 0,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The prompt, all of a file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Continue a prompt, piece by piece; with --json each piece is a line. Ctrl-C ends it.

    Examples:

      conch generate "Once upon a time"

      conch generate --model stories "The sea" --temperature 0.7 --top-p 0.9 --max-tokens 60 --seed 1

      conch generate --file prompt.txt --temperature 0 --schema person.json --json
    """
    stubs = connect()
    request = inference_pb2.GenerateRequest(
        prompt=prompt or whole(file, called="prompt"),
        model=asked_model(stubs, model, "Generate"),
        version=version,
        sampling=sampling.message(),
    )
    _show(stubs.inference.Generate(request), as_json=as_json)


@takes(sampling=Sampling)
def chat(
    sampling: Sampling,
    message: Annotated[
        str, typer.Argument(help="What you say; none on a terminal: a conversation.", show_default=False)
    ] = "",
    model: Model = "",
    version: Version = 0,
    system: Annotated[str, Option("--system", "-s", help="What the assistant is told beforehand.")] = "",
    as_json: AsJson = False,
) -> None:
    """Talk with a model: a message is answered once, without one on a terminal it is a conversation.

    What is piped in is the message. With --json each piece is a line. Ctrl-D ends a conversation, Ctrl-C too.

    Examples:

      conch chat "Why is the sky blue?"

      conch chat --model assistant --system "Answer in one sentence." --temperature 0.7

      git diff | conch chat --system "Write a commit message." --json
    """
    stubs = connect()
    request = inference_pb2.ChatRequest(
        model=asked_model(stubs, model, "Chat"), version=version, sampling=sampling.message()
    )
    if system:
        request.messages.add(role="system", content=system)

    def answer(said: str) -> None:
        _answer(stubs.inference.Chat, request, said, as_json=as_json)

    if message or not sys.stdin.isatty():
        answer(message or whole(None, called="message"))
    else:
        _converse(answer)


def _converse(answer: Callable[[str], None]) -> None:
    with suppress(ImportError):
        import readline  # noqa: F401  # gives input() its arrow keys
    output.remark("Ctrl-D ends the conversation")
    while True:
        try:
            said = _read_line()
        except EOFError:
            output.remark("")
            return
        if said.strip():
            answer(said)


def _read_line() -> str:
    if sys.stdout.isatty():
        return input("> ")
    # input() would write its prompt among the answers.
    sys.stderr.write("> ")
    sys.stderr.flush()
    return input()


def _answer(
    rpc: Callable[[Any], Any], request: inference_pb2.ChatRequest, said: str, *, as_json: bool
) -> None:
    """Shows the answer to what was said; both stay in the request as what came before."""
    request.messages.add(role="user", content=said)
    text = _show(rpc(request), as_json=as_json)
    if text.strip():
        request.messages.add(role="assistant", content=text)
    else:
        del request.messages[-1]  # an empty turn could never be sent again


def _show(call: Any, *, as_json: bool) -> str:
    """Prints pieces as they arrive, ends the call if it does not, and returns the text."""
    responses = []
    try:
        for response in call:
            responses.append(response)
            if as_json:
                output.print_json(response)
            else:
                output.print_piece(response.piece.text)
    finally:
        call.cancel()
        text = "".join(response.piece.text for response in responses)
        if text and not as_json and not text.endswith("\n"):
            output.print_piece("\n")
    if not as_json and responses:
        _show_end(responses)
    return text


def _show_end(responses: list[Any]) -> None:
    logprobs = [token for response in responses for token in response.piece.logprobs]
    if logprobs:
        output.print_result({}, as_json=False, view=answers_views.logprobs(logprobs))
    output.remark(answers_views.stream_end(responses[-1]))
