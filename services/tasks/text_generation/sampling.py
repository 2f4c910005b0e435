"""Sampling options of a request, checked field by field and spelled as vLLM's SamplingParams.

Knows the contract's ranges; knows nothing about prompts or engines. Upstream names: vllm/sampling_params.py.
"""

import json
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema

from conch.v1 import inference_pb2
from services.errors import InvalidRequest, Violation

DEFAULT_MAX_TOKENS = 256
MAX_STOPS = 16
MAX_LOGPROBS = 20
MAX_SCHEMA_BYTES = 64 << 10
_MAX_TOP_K = 1_000_000
_HIGHEST_SEED = (1 << 63) - 1
_OPTIONAL: tuple[Literal["temperature", "top_p", "repetition_penalty"], ...] = (
    "temperature",
    "top_p",
    "repetition_penalty",
)

FIELDS = {
    **{name: f"sampling.{name}" for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")},
    **{name: f"sampling.{name}" for name in ("seed", "stop", "max_tokens", "min_tokens")},
    "logprobs": "sampling.num_logprobs",
    "structured_outputs": "sampling.json_schema",
}
"""Field of the request that each of vLLM's parameters is made of."""


def parameters(options: inference_pb2.SamplingOptions) -> dict[str, Any]:
    """Returns vLLM's SamplingParams by name, max_tokens always among them.

    Raises InvalidRequest that names every bad field.
    """
    problems = [Violation(f"sampling.{name}", text) for name, text in _problems(options)]
    if problems:
        raise InvalidRequest(*problems, reason="BAD_SAMPLING")
    return _spelled(options)


def _problems(options: inference_pb2.SamplingOptions) -> Iterator[tuple[str, str]]:
    yield from _bad_ranges(options)
    yield from _bad_lengths(options)
    yield from _bad_stops(options)
    if options.json_schema and (problem := _schema_problem(options.json_schema)):
        yield "json_schema", problem


def _bad_ranges(options: inference_pb2.SamplingOptions) -> Iterator[tuple[str, str]]:
    # Written so that what is no number fails, too.
    if options.HasField("temperature") and not 0 <= options.temperature <= 100:
        yield "temperature", f"must be in [0, 100], not {options.temperature:g}"
    if options.top_k > _MAX_TOP_K:
        yield "top_k", f"must be at most {_MAX_TOP_K}, not {options.top_k}"
    if options.HasField("top_p") and not 0 < options.top_p <= 1:
        yield "top_p", f"must be in (0, 1], not {options.top_p:g}"
    if not 0 <= options.min_p < 1:
        yield "min_p", f"must be in [0, 1), not {options.min_p:g}"
    if options.HasField("repetition_penalty") and not 0 < options.repetition_penalty <= 10:
        yield "repetition_penalty", f"must be in (0, 10], not {options.repetition_penalty:g}"
    if options.num_logprobs > MAX_LOGPROBS:
        yield "num_logprobs", f"must be at most {MAX_LOGPROBS}, not {options.num_logprobs}"


def _bad_lengths(options: inference_pb2.SamplingOptions) -> Iterator[tuple[str, str]]:
    if options.HasField("max_tokens") and options.max_tokens < 1:
        yield "max_tokens", "must be at least 1; leave it unset for the default"
        return
    if options.min_tokens > (most := _most(options)):
        yield "min_tokens", f"must be at most max_tokens, {most}, not {options.min_tokens}"


def _bad_stops(options: inference_pb2.SamplingOptions) -> Iterator[tuple[str, str]]:
    if len(options.stop) > MAX_STOPS:
        yield "stop", f"has {len(options.stop)} strings, at most {MAX_STOPS} may be sent"
    yield from ((f"stop[{i}]", "is empty") for i, stop in enumerate(options.stop) if not stop)


def _schema_problem(text: str) -> str:
    """Returns what is wrong with a JSON schema, empty if nothing; no reference is followed."""
    if (size := len(text.encode())) > MAX_SCHEMA_BYTES:
        return f"has {size} bytes of UTF-8, at most {MAX_SCHEMA_BYTES} may be sent"
    try:
        schema = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(schema, dict):
            return "is no JSON object"
        if not schema:
            return "says nothing; every text that is JSON would satisfy it"
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        return f"is no JSON schema (draft 2020-12): at {error.json_path}: {error.message[:200]}"
    except RecursionError:
        return "is nested too deeply"
    except ValueError as error:
        return f"is no JSON: {error}"
    return ""


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _spelled(options: inference_pb2.SamplingOptions) -> dict[str, Any]:
    spelled: dict[str, Any] = {
        name: _shortest(getattr(options, name)) for name in _OPTIONAL if options.HasField(name)
    }
    spelled |= {name: getattr(options, name) for name in ("top_k", "min_tokens") if getattr(options, name)}
    if options.min_p:
        spelled["min_p"] = _shortest(options.min_p)
    if options.stop:
        spelled["stop"] = list(options.stop)
    if options.HasField("seed"):
        # Engines take signed numbers; the same seed is still the same.
        spelled["seed"] = options.seed & _HIGHEST_SEED
    if options.HasField("num_logprobs"):
        spelled["logprobs"] = options.num_logprobs
    if options.json_schema:
        # Triton's vLLM backend reads this one parameter as JSON within JSON.
        spelled["structured_outputs"] = json.dumps({"json": json.loads(options.json_schema)})
    return {"max_tokens": _most(options), **spelled}


def _most(options: inference_pb2.SamplingOptions) -> int:
    return options.max_tokens if options.HasField("max_tokens") else DEFAULT_MAX_TOKENS


def _shortest(value: float) -> float:
    """Returns 0.7 for the float32 next to it, so that an engine counts with what the caller wrote."""
    return float(f"{value:.7g}")
