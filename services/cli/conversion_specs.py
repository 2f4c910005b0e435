"""What a person typed about a conversion job, as the contract's ConversionSpec.

Knows options and messages; sends nothing.
"""

from dataclasses import dataclass
from typing import Annotated

from conch.v1 import conversion_pb2, job_pb2
from services.cli.failures import USAGE, CliError
from services.cli.options import number, pairs
from services.cli.specs import PRECISIONS, Option, absolute

_RUNTIMES = {
    "onnxruntime": job_pb2.RUNTIME_ONNXRUNTIME,
    "openvino": job_pb2.RUNTIME_OPENVINO,
    "vllm": job_pb2.RUNTIME_VLLM,
}
_PROOF = "Conversion"


@dataclass(frozen=True)
class ConversionOptions:
    """The options of a conversion job."""

    model: Annotated[str, Option("--model", "-m", help="Model to publish a version of.")] = ""
    target: Annotated[
        list[str] | None,
        Option(
            help="runtime or runtime=precision, repeated. Default: all that the task is served with.",
            rich_help_panel=_PROOF,
        ),
    ] = None
    limit: Annotated[
        list[str] | None,
        Option(
            help="figure=value where the task's limit does not fit, as in label_flip_rate=0.01.",
            rich_help_panel=_PROOF,
        ),
    ] = None
    parity_examples: Annotated[
        int, Option(help="Held-out examples to prove on. Default 500.", rich_help_panel=_PROOF)
    ] = 0
    conversion_attempts: Annotated[
        int, Option(help="Attempts before FAILED. Default 3.", rich_help_panel=_PROOF)
    ] = 0
    conversion_profile: Annotated[
        str,
        Option(help="In a cluster: the kind of machine, as its operator named it.", rich_help_panel=_PROOF),
    ] = ""


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
        profile=options.conversion_profile,
    )


def _target(text: str) -> conversion_pb2.Target:
    runtime, _, precision = text.partition("=")
    if runtime not in _RUNTIMES or precision not in PRECISIONS:
        known = f"{', '.join(_RUNTIMES)} with {', '.join(p for p in PRECISIONS if p)}"
        raise CliError(f"--target {text!r}: runtime[=precision] of {known}", exit_code=USAGE)
    return conversion_pb2.Target(runtime=_RUNTIMES[runtime], precision=PRECISIONS[precision])
