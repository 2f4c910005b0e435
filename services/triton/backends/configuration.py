"""How both backends read config.pbtxt, complete it from the graph and hold it against the graph.

Runs inside Triton's python stubs and cannot import Conch. Knows model configurations as Triton hands
them over (JSON); knows nothing about runtimes. What it raises is what a failed load answers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]

# As Triton's own backends complete a configuration that says nothing about batching.
_DEFAULT_MAX_BATCH_SIZE = 4
UNSERVED = {"TYPE_BF16": "Triton's python backend cannot carry bfloat16, cast it inside the graph"}
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")


@dataclass(frozen=True)
class Tensor:
    """An input or output of the graph: `dtype` as in config.pbtxt, `dims` with the batch, -1 = dynamic."""

    name: str
    dtype: str
    dims: tuple[int, ...]


def load(arguments: dict[str, str]) -> Config:
    """Returns the model's configuration from what `initialize` is given."""
    config: Config = json.loads(arguments["model_config"])
    return config


def text(config: Config, name: str, default: str = "") -> str:
    """Returns a parameter of config.pbtxt."""
    return str(config.get("parameters", {}).get(name, {}).get("string_value", default))


def integer(config: Config, name: str) -> int:
    """Returns a whole-number parameter, 0 if it is not set."""
    value = text(config, name, "0")
    if not value.strip().isdigit():
        raise ValueError(f"parameter {name} must be a whole number from 0, not {value!r}")
    return int(value)


def switch(config: Config, name: str, *, default: bool) -> bool:
    """Returns a yes-or-no parameter."""
    value = text(config, name, str(default)).lower()
    if value not in _YES + _NO:
        raise ValueError(f"parameter {name} must be true or false, not {value!r}")
    return value in _YES


def is_complete(config: Config) -> bool:
    """Returns whether inputs and outputs are named, so that nothing need be read from the graph."""
    return bool(config["input"] and config["output"])


def complete(model: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Adds what `model` (a pb ModelConfig) lacks: inputs, outputs, batching if the graph allows it."""
    config: Config = model.as_dict()
    silent = not (config["input"] or config["output"] or config["max_batch_size"])
    if silent and all(t.dims and t.dims[0] == -1 for t in (*inputs, *outputs)):
        model.set_max_batch_size(_DEFAULT_MAX_BATCH_SIZE)
        model.set_dynamic_batching()
    skipped = 1 if config["max_batch_size"] else 0
    for tensor in () if config["input"] else inputs:
        model.add_input(_described(tensor, skipped))
    for tensor in () if config["output"] else outputs:
        model.add_output(_described(tensor, skipped))


def check(
    config: Config,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    *,
    unserved: Mapping[str, str] = UNSERVED,
) -> None:
    """Raises ValueError, saying what differs, unless the configuration fits the graph.

    `unserved` says why tensors of a dtype cannot be served.
    """
    problems = [
        *_differences(config, "input", inputs),
        *_differences(config, "output", outputs),
        *_unserved([*inputs, *outputs], unserved),
    ]
    named = {entry["name"] for entry in config["input"]}
    problems += [f"the graph's input {t.name!r} is missing" for t in inputs if t.name not in named]
    if problems:
        raise ValueError(f"config.pbtxt and graph differ: {'; '.join(problems)}")


def _described(tensor: Tensor, skipped: int) -> dict[str, object]:
    return {"name": tensor.name, "data_type": tensor.dtype, "dims": list(tensor.dims[skipped:])}


def _differences(config: Config, kind: str, tensors: Sequence[Tensor]) -> list[str]:
    known = {tensor.name: tensor for tensor in tensors}
    found = []
    for entry in config[kind]:
        tensor = known.get(entry["name"])
        if tensor is None:
            found.append(f"the graph has no {kind} {entry['name']!r}, only {sorted(known)}")
        elif tensor.dtype != entry["data_type"]:
            found.append(f"{kind} {tensor.name!r} is {tensor.dtype}, not {entry['data_type']}")
        elif not _fits(_full_dims(config, entry), tensor.dims):
            found.append(f"{kind} {tensor.name!r} is {list(tensor.dims)}, not {_full_dims(config, entry)}")
    return found


def _full_dims(config: Config, entry: Config) -> list[int]:
    dims = entry.get("reshape", {}).get("shape", entry["dims"])
    return [*([-1] if config["max_batch_size"] else []), *(int(dim) for dim in dims)]


def _fits(wanted: Sequence[int], dims: Sequence[int]) -> bool:
    return len(wanted) == len(dims) and all(
        -1 in pair or pair[0] == pair[1] for pair in zip(wanted, dims, strict=True)
    )


def _unserved(tensors: Sequence[Tensor], unserved: Mapping[str, str]) -> list[str]:
    return [f"{t.name!r} is {t.dtype}: {unserved[t.dtype]}" for t in tensors if t.dtype in unserved]
