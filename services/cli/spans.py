"""`conch extract` and `conch answer`: what stands where in a text."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from conch.v1 import inference_pb2
from services.cli import answers_views, output
from services.cli.asking import BATCH, File, Model, Texts, Version, ask, asked_model, several, whole
from services.cli.failures import USAGE, CliError
from services.cli.output import AsJson
from services.cli.specs import Whole
from services.cli.stubs import connect


class Aggregation(StrEnum):
    """How the tokens of a word that disagree are settled."""

    SIMPLE = "simple"
    FIRST = "first"
    AVERAGE = "average"
    MAX = "max"


def extract(
    texts: Texts = None,
    model: Model = "",
    version: Version = 0,
    aggregation: Annotated[
        Aggregation,
        typer.Option(help="simple: by token; else a word is of the type of its first, average, best token."),
    ] = Aggregation.SIMPLE,
    min_score: Annotated[float, typer.Option(help="Leave out entities with a lower score.")] = 0.0,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Find the entities in texts: names of people, places, products, whatever the model was trained on.

    Lines of a file go out in batches of 64; with --json each batch's answer is a line. Offsets count
    characters from 0, the end is exclusive; long texts are read whole.

    Examples:

      conch extract "Ada Lovelace met Babbage in London."

      conch extract --model ner --file mails.txt --min-score 0.8 --json

      conch extract --aggregation first "Angela Merkel was born in Hamburg."
    """
    stubs = connect()
    chosen = several(texts, file)
    request = inference_pb2.ExtractEntitiesRequest(
        model=asked_model(stubs, model, "ExtractEntities"),
        version=version,
        aggregation=inference_pb2.ExtractEntitiesRequest.Aggregation.Value(f"AGGREGATION_{aggregation.name}"),
        min_score=min_score,
    )
    rpc = stubs.inference.ExtractEntities
    ask(rpc, request, chosen, as_json=as_json, view=answers_views.entities)


def answer(
    questions: Annotated[
        list[str] | None, typer.Argument(help="Questions; none: --file.", show_default=False)
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option("--context", "-c", help="What is read: once for all questions, or once for each."),
    ] = None,
    context_file: Annotated[
        Path | None, typer.Option(help="The context, all of a file. Without either: all of stdin.")
    ] = None,
    model: Model = "",
    version: Version = 0,
    top_k: Annotated[int, Whole(help="Answers wanted for each question. Default 1.")] = 0,
    max_answer_tokens: Annotated[int, Whole(help="Longest answer. Default: the model's.")] = 0,
    no_answer_threshold: Annotated[
        float | None,
        typer.Option(help='From this probability on "there is none" is the answer. Default: never.'),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="One question a line.")] = None,
    as_json: AsJson = False,
) -> None:
    """Answer questions with spans of a context, however long.

    Examples:

      conch answer "Where did they meet?" --context "Ada met Babbage in London."

      conch answer "Who pays?" "Until when?" --context-file contract.txt --no-answer-threshold 0.5

      cat contract.txt | conch answer --model squad --top-k 3 "Who pays?" --json
    """
    stubs = connect()
    if not questions and file is None:
        raise CliError("no question: give questions or --file", exit_code=USAGE)
    asked = several(questions, file, called="question")
    contexts = context or [whole(context_file, called="context")]
    request = inference_pb2.AnswerQuestionRequest(
        model=asked_model(stubs, model, "AnswerQuestion"),
        version=version,
        top_k=top_k,
        max_answer_tokens=max_answer_tokens,
        no_answer_threshold=no_answer_threshold,
    )
    for batch, read in _with_contexts(asked, contexts):
        del request.questions[:], request.contexts[:]
        request.questions.extend(batch)
        request.contexts.extend(read)
        found = stubs.inference.AnswerQuestion(request)
        output.print_result(found, as_json=as_json, view=answers_views.answers(batch, found))


def _with_contexts(
    questions: Sequence[str], contexts: Sequence[str]
) -> list[tuple[Sequence[str], Sequence[str]]]:
    """Returns batches of questions, each with its contexts; the gateway says if their numbers do not fit."""
    if len(contexts) not in (1, len(questions)):
        return [(questions, contexts)]
    starts = range(0, len(questions), BATCH)
    return [
        (questions[i : i + BATCH], contexts if len(contexts) == 1 else contexts[i : i + BATCH])
        for i in starts
    ]
