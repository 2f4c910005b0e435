"""`conch classify`: labels of texts, the model's own or those of the caller."""

from typing import Annotated

import typer

from conch.v1 import inference_pb2
from services.cli import answers_views
from services.cli.asking import BATCH, File, Model, Texts, Version, ask, asked_model, several
from services.cli.output import AsJson
from services.cli.stubs import connect


def classify(
    texts: Texts = None,
    model: Model = "",
    version: Version = 0,
    top_k: Annotated[int, typer.Option(min=0, help="Labels wanted; 0 = all.")] = 0,
    pair: Annotated[
        list[str] | None, typer.Option(help="Second text of a pair: one for each text, repeated.")
    ] = None,
    candidate_label: Annotated[
        list[str] | None,
        typer.Option("--candidate-label", "-c", help="Zero-shot: a label of your own, repeated."),
    ] = None,
    hypothesis: Annotated[
        str,
        typer.Option(
            help='Zero-shot: what {} in it stands in. Default "This example is {}."', show_default=False
        ),
    ] = "",
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="Zero-shot: several labels may fit a text.")
    ] = False,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Label texts through the gateway.

    Lines of a file go out in batches of 64; with --json each batch's answer is a line, texts in order.
    Models of pairs take --pair; models that know entailment or similarity take labels of your own.

    Examples:

      conch classify "A film that I will not forget." "Two hours I want back."

      conch classify --model sentiment --file reviews.txt --json

      conch classify -m nli -c sport -c politics --hypothesis "This text is about {}." "They won 3:0."
    """
    stubs = connect()
    chosen = several(texts, file)
    request = inference_pb2.ClassifyRequest(
        model=asked_model(stubs, model, "Classify"),
        version=version,
        top_k=top_k,
        text_pairs=pair or [],
        candidate_labels=candidate_label or [],
        hypothesis_template=hypothesis,
        multi_label=multi_label,
    )
    ask(
        stubs.inference.Classify,
        request,
        chosen,
        as_json=as_json,
        view=answers_views.classifications,
        size=len(chosen) if pair else BATCH,
    )
