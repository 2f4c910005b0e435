"""What a person typed, as the specs of the contract.

Relative paths become absolute, since services have other folders.
Knows options and messages; sends nothing.
"""

import secrets
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from conch.v1 import conversion_pb2, job_pb2, training_pb2
from services.cli.failures import USAGE, CliError
from services.cli.options import number, pairs

# What stands for "not given" (0, empty) is no default to show: the service has its own, told in the help.
_Option = partial(typer.Option, show_default=False)
_RUNTIMES = {"onnxruntime": job_pb2.RUNTIME_ONNXRUNTIME, "openvino": job_pb2.RUNTIME_OPENVINO}
_PRECISIONS: dict[str, job_pb2.Precision.ValueType] = {
    "": job_pb2.PRECISION_UNSPECIFIED,
    "fp32": job_pb2.PRECISION_FP32,
    "bf16": job_pb2.PRECISION_BF16,
    "int8": job_pb2.PRECISION_INT8,
}
_DATA, _FIT, _PROOF = "Data", "Training", "Conversion"


@dataclass(frozen=True)
class TrainingOptions:
    """The options of a training job; 0 and unset mean the service's default."""

    base_model: Annotated[
        str, _Option("--base-model", "-b", help="Model to start from: a folder, a URI or a hub id.")
    ] = ""
    task: Annotated[str, typer.Option("--task", "-t", help="Hugging Face task id.")] = "text-classification"
    validation: Annotated[
        str, _Option(help="Validation file; default: cut from the data.", rich_help_panel=_DATA)
    ] = ""
    column: Annotated[
        list[str] | None,
        _Option(help="role=name where the guess is wrong, as in label=stars.", rich_help_panel=_DATA),
    ] = None
    label: Annotated[
        list[str] | None, _Option(help="Labels in the model's order, repeated.", rich_help_panel=_DATA)
    ] = None
    validation_fraction: Annotated[
        float, _Option(help="Share held out without --validation. Default 0.1.", rich_help_panel=_DATA)
    ] = 0.0
    max_train_examples: Annotated[
        int, _Option(help="Train on a stratified sample of this size.", rich_help_panel=_DATA)
    ] = 0
    max_validation_examples: Annotated[
        int, _Option(help="Evaluate on a stratified sample of this size.", rich_help_panel=_DATA)
    ] = 0
    epochs: Annotated[float, _Option(help="Passes over the data. Default 3.", rich_help_panel=_FIT)] = 0.0
    max_steps: Annotated[int, _Option(help="Stop after this many steps.", rich_help_panel=_FIT)] = 0
    learning_rate: Annotated[
        float, _Option(help="Peak learning rate. Default 5e-5.", rich_help_panel=_FIT)
    ] = 0.0
    batch_size: Annotated[
        int, _Option(help="Examples in one forward pass. Default 16.", rich_help_panel=_FIT)
    ] = 0
    gradient_accumulation_steps: Annotated[
        int, _Option(help="Forward passes to one step. Default 1.", rich_help_panel=_FIT)
    ] = 0
    max_length: Annotated[int, _Option(help="Tokens read of a text. Default 256.", rich_help_panel=_FIT)] = 0
    warmup_ratio: Annotated[
        float | None, _Option(help="Share of steps with rising rate. Default 0.06.", rich_help_panel=_FIT)
    ] = None
    weight_decay: Annotated[
        float | None, _Option(help="Decoupled weight decay. Default 0.01.", rich_help_panel=_FIT)
    ] = None
    patience: Annotated[
        int | None,
        _Option(
            help="Evaluations without a better one before stopping; 0 = never. Default 3.",
            rich_help_panel=_FIT,
        ),
    ] = None
    evaluations_per_epoch: Annotated[
        int, _Option(help="Evaluations in one epoch. Default 4.", rich_help_panel=_FIT)
    ] = 0
    seed: Annotated[
        int | None, _Option(help="Seed of everything random. Default 42.", rich_help_panel=_FIT)
    ] = None
    threads: Annotated[int, _Option(help="CPU threads; 0 = all cores.", rich_help_panel=_FIT)] = 0
    precision: Annotated[
        str, _Option(help="fp32, or bf16 where the processor has it. Default fp32.", rich_help_panel=_FIT)
    ] = ""
    max_attempts: Annotated[int, _Option(help="Attempts before FAILED. Default 3.", rich_help_panel=_FIT)] = 0


@dataclass(frozen=True)
class ConversionOptions:
    """The options of a conversion job."""

    model: Annotated[str, _Option("--model", "-m", help="Model to publish a version of.")] = ""
    target: Annotated[
        list[str] | None,
        _Option(
            help="runtime or runtime=precision, repeated. Default onnxruntime=fp32 and openvino=bf16.",
            rich_help_panel=_PROOF,
        ),
    ] = None
    limit: Annotated[
        list[str] | None,
        _Option(
            help="figure=value where the task's limit does not fit, as in label_flip_rate=0.01.",
            rich_help_panel=_PROOF,
        ),
    ] = None
    parity_examples: Annotated[
        int, _Option(help="Held-out examples to prove on. Default 500.", rich_help_panel=_PROOF)
    ] = 0
    conversion_attempts: Annotated[
        int, _Option(help="Attempts before FAILED. Default 3.", rich_help_panel=_PROOF)
    ] = 0


def training_spec(data: str, options: TrainingOptions) -> training_pb2.TrainingSpec:
    """Returns the spec. Raises CliError if an option cannot be read."""
    if not options.base_model:
        raise CliError("--base-model is required: a folder, a URI or a hub id", exit_code=USAGE)
    spec = training_pb2.TrainingSpec(
        task=options.task,
        base_model=absolute(options.base_model),
        dataset=_dataset(data, options),
        hyperparameters=_hyperparameters(options),
        max_attempts=options.max_attempts,
    )
    if options.label:
        spec.text_classification.labels.extend(options.label)
    return spec


def conversion_spec(checkpoint: str, options: ConversionOptions) -> conversion_pb2.ConversionSpec:
    """Returns the spec. Raises CliError if an option cannot be read."""
    if not options.model:
        raise CliError("--model is required: the name to publish under", exit_code=USAGE)
    limits = pairs(options.limit or [], "--limit")
    return conversion_pb2.ConversionSpec(
        checkpoint_uri=absolute(checkpoint),
        model=options.model,
        targets=[_target(text) for text in options.target or []],
        limits={name: number(value, f"--limit {name}") for name, value in limits.items()},
        num_parity_examples=options.parity_examples,
        max_attempts=options.conversion_attempts,
    )


def absolute(place: str) -> str:
    """Returns a path that exists here as an absolute one; URIs and hub ids stay."""
    path = Path(place).expanduser()
    looks_like_path = place.startswith((".", "~", "/")) or path.exists()
    return str(path.absolute()) if place and "://" not in place and looks_like_path else place


def new_id(stem: str) -> str:
    """Returns a fresh job id that starts with `stem`, made here so that a repeated create makes one job."""
    clean = "".join(c if c.isascii() and c.isalnum() else "-" for c in stem.lower()).strip("-")[:40]
    return f"{clean or 'job'}-{secrets.token_hex(3)}"


def _dataset(data: str, options: TrainingOptions) -> training_pb2.Dataset:
    return training_pb2.Dataset(
        train_uri=_data_path(data),
        validation_uri=_data_path(options.validation) if options.validation else "",
        columns=pairs(options.column or [], "--column"),
        validation_fraction=options.validation_fraction,
        max_train_examples=options.max_train_examples,
        max_validation_examples=options.max_validation_examples,
    )


def _data_path(place: str) -> str:
    """Returns a data file's place; there are no hub ids here, so whatever is no URI is a path."""
    return place if "://" in place else str(Path(place).expanduser().absolute())


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
        precision=_precision(options.precision, "--precision"),
        **{name: value for name, value in optional.items() if value is not None},
    )


def _precision(name: str, option: str) -> job_pb2.Precision.ValueType:
    if name not in _PRECISIONS:
        known = ", ".join(filter(None, _PRECISIONS))
        raise CliError(f"{option} {name!r}: one of {known}", exit_code=USAGE)
    return _PRECISIONS[name]


def _target(text: str) -> conversion_pb2.Target:
    runtime, _, precision = text.partition("=")
    if runtime not in _RUNTIMES or precision not in _PRECISIONS:
        known = f"{', '.join(_RUNTIMES)} with {', '.join(p for p in _PRECISIONS if p)}"
        raise CliError(f"--target {text!r}: runtime[=precision] of {known}", exit_code=USAGE)
    return conversion_pb2.Target(runtime=_RUNTIMES[runtime], precision=_PRECISIONS[precision])
