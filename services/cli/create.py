"""`conch train` and `conch convert`: create one job and, unless asked not to, follow it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli import output, views
from services.cli.conversion_specs import ConversionOptions, conversion_spec
from services.cli.failures import FORBIDDEN, CliError
from services.cli.following import follow, require_success
from services.cli.job_kinds import Job, JobKind, conversion, training
from services.cli.options import takes
from services.cli.output import AsJson
from services.cli.specs import new_id
from services.cli.stubs import Stubs, connect
from services.cli.training_specs import TrainingOptions, training_spec

JobId = Annotated[str, typer.Option("--id", help="Id of the job; the same id and spec continue that job.")]
Watch = Annotated[bool, typer.Option(help="Follow the job until it ends.")]


@takes(options=TrainingOptions)
def train(
    data: Annotated[str, typer.Argument(help="The data: a path or a URI, see --format.")],
    options: TrainingOptions,
    id: JobId = "",
    watch: Watch = True,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a model on labelled text.

    What only one task knows is an --option of it; `--option help` lists them.

    Examples:

      conch train reviews.csv --base-model ./minilm

      conch train mails.jsonl -b ./minilm --column text=body --column label=team --epochs 2 --no-watch

      conch train mails.jsonl -b ./minilm --option problem_type=multi_label

      conch train places.conll -b ./minilm --task token-classification --label LOC --label ORG

      conch train questions.json -b ./minilm -t question-answering --option help

      conch train de.csv -b ./marian -t text2text-generation -o language_pairs='{"source":"en","target":"de"}'
    """
    stubs = connect()
    job_id = id or new_id(Path(data).stem)
    _create(training(stubs), job_id, training_spec(data, options), watch=watch, as_json=as_json)


@takes(options=ConversionOptions)
def convert(
    checkpoint: Annotated[
        str, typer.Argument(help="A checkpoint's URI or folder, or the training job's id.")
    ],
    options: ConversionOptions,
    id: JobId = "",
    watch: Watch = True,
    as_json: AsJson = False,
) -> None:
    """Turn a checkpoint into a certified, published model version.

    Examples:

      conch convert reviews-3fa9c1 --model sentiment

      conch convert .conch/artifacts/training/reviews-3fa9c1 -m sentiment --target onnxruntime=int8
    """
    stubs = connect()
    spec = conversion_spec(_checkpoint_uri(stubs, checkpoint), options)
    _create(conversion(stubs), id or new_id(options.model), spec, watch=watch, as_json=as_json)


def _create(kind: JobKind, job_id: str, spec: Any, *, watch: bool, as_json: bool) -> None:
    job = kind.create(job_id, spec)
    if not as_json:
        output.remark(f"{kind.name} job {job.id} {views.state_name(job.status.state)}")
    if watch:
        job = follow(kind, job.id, as_json=as_json)
    _print_job(kind, job, as_json=as_json)
    if watch:
        require_success(kind, job)


def _print_job(kind: JobKind, job: Job, *, as_json: bool) -> None:
    output.print_result(job, as_json=as_json, view=views.job(kind.name, job))


def _checkpoint_uri(stubs: Stubs, checkpoint: str) -> str:
    """Returns the checkpoint's URI; a plain word that is no folder here is the id of a training job."""
    if "/" in checkpoint or Path(checkpoint).exists():
        return checkpoint
    job = training(stubs).get(checkpoint)
    if not job.HasField("result"):
        state = views.state_name(job.status.state)
        raise CliError(f"training job {checkpoint} is {state}: it has no checkpoint", exit_code=FORBIDDEN)
    return str(job.result.checkpoint_uri)
