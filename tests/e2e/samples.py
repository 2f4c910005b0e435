"""A task's sample by `conch ship`: what is typed, and what lies where afterwards."""

import json
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from conch.v1 import job_pb2
from examples.stack import Conch
from services.targets import runtime_name
from services.tasks import find_task
from tests.integration.samples import SAMPLES, Sample

NUM_INPUTS, MAX_LENGTH = 200, 64
# As many are held out as are trained on.
_SHIP = "--validation-fraction 0.5 --parity-examples 64".split()
_QUICK = {
    "num_epochs": 1,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "evaluations_per_epoch": 1,
    "max_length": MAX_LENGTH,
}


def ship(conch: Conch, task: str, base: Path, scratch: Path) -> Path:
    """Ships a task's sample as a model named `held-out-<task>` and returns its checkpoint."""
    sample, name = SAMPLES[task], f"held-out-{task}"
    data = sample.write(scratch, 2 * NUM_INPUTS)
    given = ("--task", task, "--model", name, "--base-model", str(base), "--id", name)
    # fp32 alone: models this small stand on ties, which bf16 tips over.
    form = find_task(task).form_in(job_pb2.RUNTIME_ONNXRUNTIME)
    assert form is not None, "the stack's Triton is started for onnxruntime"
    target = ("--target", f"{runtime_name(form.runtime)}=fp32")
    conch("ship", str(data), *given, *_SHIP, *target, *_hyperparameters(sample), *_options(sample))
    return conch.home / "artifacts" / "training" / name


def _hyperparameters(sample: Sample) -> list[str]:
    chosen = {**_QUICK, **sample.hyperparameters}
    flags = {name.replace("_", "-").replace("num-", ""): value for name, value in chosen.items()}
    return [part for name, value in flags.items() for part in (f"--{name}", str(value))]


def _options(sample: Sample) -> list[str]:
    kind = sample.spec.WhichOneof("kind")
    if kind is None:
        return []
    given = json_format.MessageToDict(getattr(sample.spec, kind), preserving_proto_field_name=True)
    return [part for option in _written(given) for part in ("--option", option)]


def _written(fields: dict[str, Any]) -> list[str]:
    """Returns name=value for each value of each field."""
    values = [(name, one) for name, v in fields.items() for one in (v if isinstance(v, list) else [v])]
    # Enums by their short names, as people write them: ADAPTATION_FULL is full.
    short = {name: name.upper() + "_" for name in fields}
    return [
        f"{name}={one.removeprefix(short[name]).lower() if one.startswith(short[name]) else one}"
        if isinstance(one, str)
        else f"{name}={json.dumps(one)}"
        for name, one in values
    ]
