"""What a person typed about a training job, as the contract's TrainingSpec.

Knows options and messages; sends nothing.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from conch.v1 import training_pb2
from services.cli.failures import USAGE, CliError
from services.cli.options import pairs
from services.cli.specs import Option, absolute, data_path, precision
from services.cli.task_options import TASKS, task_spec

_FORMATS = {
    name.removeprefix("FORMAT_").lower(): value
    for name, value in training_pb2.Dataset.Format.items()
    if value
}
_DATA, _FIT = "Data", "Training"


@dataclass(frozen=True)
class TrainingOptions:
    """The options of a training job; 0 and unset mean the service's default."""

    base_model: Annotated[
        str, Option("--base-model", "-b", help="Model to start from: a folder, a URI or a hub id.")
    ] = ""
    task: Annotated[str, typer.Option("--task", "-t", help=f"Hugging Face task id: {', '.join(TASKS)}.")] = (
        "text-classification"
    )
    option: Annotated[
        list[str] | None,
        Option(
            "--option",
            "-o",
            help="name=value, a choice of the task's own, repeated: text, or JSON. --option help lists them.",
        ),
    ] = None
    validation: Annotated[
        str, Option(help="Validation file; default: cut from the data.", rich_help_panel=_DATA)
    ] = ""
    format: Annotated[
        str,
        Option(help=f"{', '.join(_FORMATS)}. Default: by the file's name.", rich_help_panel=_DATA),
    ] = ""
    column: Annotated[
        list[str] | None,
        Option(
            help="role=name where the guess is wrong, as in label=stars, repeated.", rich_help_panel=_DATA
        ),
    ] = None
    label: Annotated[
        list[str] | None,
        Option(help="Labels in the model's order, where the task has them, repeated.", rich_help_panel=_DATA),
    ] = None
    validation_fraction: Annotated[
        float, Option(help="Share held out without --validation. Default 0.1.", rich_help_panel=_DATA)
    ] = 0.0
    max_train_examples: Annotated[
        int, Option(help="Train on a stratified sample of this size.", rich_help_panel=_DATA)
    ] = 0
    max_validation_examples: Annotated[
        int, Option(help="Evaluate on a stratified sample of this size.", rich_help_panel=_DATA)
    ] = 0
    epochs: Annotated[float, Option(help="Passes over the data. Default 3.", rich_help_panel=_FIT)] = 0.0
    max_steps: Annotated[int, Option(help="Stop after this many steps.", rich_help_panel=_FIT)] = 0
    learning_rate: Annotated[
        float, Option(help="Peak learning rate. Default 5e-5.", rich_help_panel=_FIT)
    ] = 0.0
    batch_size: Annotated[
        int, Option(help="Examples in one forward pass. Default 16.", rich_help_panel=_FIT)
    ] = 0
    gradient_accumulation_steps: Annotated[
        int, Option(help="Forward passes to one step. Default 1.", rich_help_panel=_FIT)
    ] = 0
    max_length: Annotated[int, Option(help="Tokens read of a text. Default 256.", rich_help_panel=_FIT)] = 0
    warmup_ratio: Annotated[
        float | None, Option(help="Share of steps with rising rate. Default 0.06.", rich_help_panel=_FIT)
    ] = None
    weight_decay: Annotated[
        float | None, Option(help="Decoupled weight decay. Default 0.01.", rich_help_panel=_FIT)
    ] = None
    patience: Annotated[
        int | None,
        Option(
            help="Evaluations without a better one before stopping; 0 = never. Default 3.",
            rich_help_panel=_FIT,
        ),
    ] = None
    evaluations_per_epoch: Annotated[
        int, Option(help="Evaluations in one epoch. Default 4.", rich_help_panel=_FIT)
    ] = 0
    seed: Annotated[
        int | None, Option(help="Seed of everything random. Default 42.", rich_help_panel=_FIT)
    ] = None
    threads: Annotated[int, Option(help="CPU threads; 0 = all cores.", rich_help_panel=_FIT)] = 0
    precision: Annotated[
        str, Option(help="fp32, or bf16 where the processor has it. Default fp32.", rich_help_panel=_FIT)
    ] = ""
    no_training: Annotated[
        bool,
        Option("--no-training", help="Measure and keep the base model as it is.", rich_help_panel=_FIT),
    ] = False
    max_attempts: Annotated[int, Option(help="Attempts before FAILED. Default 3.", rich_help_panel=_FIT)] = 0
    profile: Annotated[
        str, Option(help="In a cluster: the kind of machine, as its operator named it.", rich_help_panel=_FIT)
    ] = ""
    nodes: Annotated[
        int, Option(help="In a cluster: machines that train together. Default 1.", rich_help_panel=_FIT)
    ] = 0


def training_spec(data: str, options: TrainingOptions) -> training_pb2.TrainingSpec:
    """Returns the spec. Raises CliError if an option cannot be read."""
    chosen = task_spec(options.task, options.option or [], options.label or [])
    if not options.base_model:
        raise CliError("--base-model is required: a folder, a URI or a hub id", exit_code=USAGE)
    return training_pb2.TrainingSpec(
        task=options.task,
        base_model=absolute(options.base_model),
        dataset=_dataset(data, options),
        hyperparameters=_hyperparameters(options),
        max_attempts=options.max_attempts,
        task_spec=chosen,
        profile=options.profile,
        num_nodes=options.nodes,
    )


def _dataset(data: str, options: TrainingOptions) -> training_pb2.Dataset:
    return training_pb2.Dataset(
        train_uri=data_path(data),
        validation_uri=data_path(options.validation) if options.validation else "",
        format=_format(options.format),
        columns=pairs(options.column or [], "--column"),
        validation_fraction=options.validation_fraction,
        max_train_examples=options.max_train_examples,
        max_validation_examples=options.max_validation_examples,
    )


def _format(name: str) -> training_pb2.Dataset.Format.ValueType:
    if name and name not in _FORMATS:
        raise CliError(f"--format {name!r}: one of {', '.join(_FORMATS)}", exit_code=USAGE)
    return _FORMATS.get(name, training_pb2.Dataset.FORMAT_UNSPECIFIED)


def _hyperparameters(options: TrainingOptions) -> training_pb2.Hyperparameters:
    optional: dict[str, Any] = {
        "warmup_ratio": options.warmup_ratio,
        "weight_decay": options.weight_decay,
        "early_stopping_patience": options.patience,
        "seed": options.seed,
    }
    return training_pb2.Hyperparameters(
        num_epochs=options.epochs,
        max_steps=options.max_steps,
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        max_length=options.max_length,
        evaluations_per_epoch=options.evaluations_per_epoch,
        num_threads=options.threads,
        precision=precision(options.precision, "--precision"),
        evaluate_only=options.no_training,
        **{name: value for name, value in optional.items() if value is not None},
    )
