"""`conch embed` and `conch rank`: texts as vectors, and by their likeness to a query."""

from enum import StrEnum
from typing import Annotated

import typer

from conch.v1 import inference_pb2
from conch.vectors import vectors
from services.cli import answers_views, output
from services.cli.asking import File, Model, Texts, Version, answers, asked_model, batches, several
from services.cli.output import AsJson
from services.cli.stubs import Stubs, connect

_MAX_CANDIDATES = 256


class Kind(StrEnum):
    """What a text is."""

    PASSAGE = "passage"
    QUERY = "query"


class Type(StrEnum):
    """The type of the numbers on the wire."""

    FLOAT32 = "float32"
    INT8 = "int8"


def embed(
    texts: Texts = None,
    model: Model = "",
    version: Version = 0,
    kind: Annotated[
        Kind, typer.Option(help="query: what is searched with, for models with prefixes.")
    ] = Kind.PASSAGE,
    dimensions: Annotated[int, typer.Option(min=0, help="Numbers wanted; 0 = all of the model's.")] = 0,
    type: Annotated[
        Type, typer.Option(help="int8: a quarter of the bytes, nearly the same direction.")
    ] = Type.FLOAT32,
    numbers: Annotated[
        bool, typer.Option("--numbers", help="Print each vector as a JSON array, one a line.")
    ] = False,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Turn texts into vectors, such that texts alike in meaning point the same way.

    With --json each batch's answer is a line, its vectors packed as the contract says; --numbers prints them
    unpacked.

    Examples:

      conch embed "How do I return a parcel?" --kind query

      conch embed --model minilm --file passages.txt --numbers > vectors.jsonl

      conch embed "a shell" --dimensions 64 --type int8 --json
    """
    stubs = connect()
    chosen = several(texts, file)
    request = inference_pb2.EmbedRequest(
        model=asked_model(stubs, model, "Embed"),
        version=version,
        kind=inference_pb2.EmbedRequest.Kind.Value(f"KIND_{kind.name}"),
        num_dimensions=dimensions,
        vector_type=inference_pb2.VectorType.Value(f"VECTOR_TYPE_{type.name}"),
    )
    for batch, answer in answers(stubs.inference.Embed, request, chosen):
        if numbers:
            output.print_lines(vectors(answer))
        else:
            output.print_result(answer, as_json=as_json, view=answers_views.embeddings(batch, answer))


def rank(
    query: Annotated[str, typer.Argument(help="What is searched with.", show_default=False)],
    candidates: Annotated[
        list[str] | None,
        typer.Argument(help="What is ordered; none: --file, else stdin.", show_default=False),
    ] = None,
    model: Model = "",
    version: Version = 0,
    top_k: Annotated[int, typer.Option(min=0, help="Candidates wanted; 0 = all.")] = 0,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Order texts by how well they fit a query.

    For models of feature-extraction, and of text-classification that score pairs; a file may be long.

    Examples:

      conch rank "return a parcel" "Opening hours" "How to send goods back" "Jobs"

      conch rank "return a parcel" --model minilm --file help-pages.txt --top-k 5

      grep -v '^$' help-pages.txt | conch rank "return a parcel" --json
    """
    stubs = connect()
    chosen = several(candidates, file, called="candidate")
    request = inference_pb2.RankRequest(
        model=asked_model(stubs, model, "Rank"), version=version, query=query, top_k=top_k
    )
    answer = _rank(stubs, request, chosen)
    output.print_result(answer, as_json=as_json, view=answers_views.ranking(chosen, answer))


def _rank(
    stubs: Stubs, request: inference_pb2.RankRequest, candidates: list[str]
) -> inference_pb2.RankResponse:
    """Returns the answer for all candidates: scores do not depend on the company, so calls can be merged.

    The calls after the first ask the version that answered it, or shares of a route would be compared.
    """
    ranked: list[inference_pb2.RankedCandidate] = []
    answer = inference_pb2.RankResponse()
    for number, batch in enumerate(batches(candidates, _MAX_CANDIDATES)):
        del request.candidates[:]
        request.candidates.extend(batch)
        answer = stubs.inference.Rank(request)
        request.version = answer.served_by.version
        for candidate in answer.ranked:
            candidate.index += number * _MAX_CANDIDATES
        ranked += answer.ranked
    del answer.ranked[:]
    ranked.sort(key=lambda candidate: -candidate.score)
    answer.ranked.extend(ranked[: request.top_k or None])
    return answer
