"""The sampling parameters of a request, spelled as vLLM spells them.

Runs inside Triton's python stubs and cannot import Conch. Knows names, defaults and ranges; knows
nothing about tokens and nothing about tensors.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

MAX_LOGPROBS = 20
_MAX_SEED = 2**63 - 1
_GRAMMARS = ("json", "regex", "choice", "json_object")


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens and when to stop; vLLM's names and defaults."""

    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """0 is all."""
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    """None is another one for every request."""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    """None is as many as the window holds."""
    min_tokens: int = 0
    logprobs: int | None = None
    """How many alternatives to report for each token, beside the chosen one; None reports nothing."""
    skip_special_tokens: bool = True
    structured_outputs: tuple[str, Any] | None = None
    """The kind of constraint (json, regex, choice, json_object) and what it says."""


def parse(text: str) -> Sampling:
    """Returns the parameters of a JSON object. Raises ValueError; its message starts with the name."""
    try:
        given = json.loads(text or "{}")
    except ValueError as error:
        raise ValueError(f"sampling_parameters: no JSON: {error}") from error
    if not isinstance(given, dict):
        raise ValueError("sampling_parameters: must be a JSON object")
    return of({name: value for name, value in given.items() if value is not None})


def of(given: Mapping[str, Any]) -> Sampling:
    """Returns the parameters that `given` names. Raises ValueError; its message starts with the name."""
    values = dict(given)
    # The older of vLLM's two spellings.
    if "guided_decoding" in values:
        values.setdefault("structured_outputs", values.pop("guided_decoding"))
    if str(values.pop("n", 1)) != "1":
        raise ValueError("n: must be 1, a request has one answer")
    for name in values:
        if name not in _READERS:
            raise ValueError(f"{name}: is not a sampling parameter, only {', '.join(_READERS)}")
    sampling = Sampling(**{name: _READERS[name](name, value) for name, value in values.items()})
    if sampling.max_tokens is not None and sampling.min_tokens > sampling.max_tokens:
        raise ValueError(f"min_tokens: must be at most max_tokens, {sampling.max_tokens}")
    return sampling


_Reader = Callable[[str, Any], Any]


def _number(lowest: float, highest: float, *, open_below: bool = False) -> _Reader:
    def read(name: str, value: Any) -> float:
        number = _converted(float, name, value, "a number")
        if not (lowest <= number <= highest) or (open_below and number == lowest):
            raise ValueError(f"{name}: must be {_range(lowest, highest, open_below)}, not {value}")
        return float(number)

    return read


def _integer(lowest: int, highest: int) -> _Reader:
    def read(name: str, value: Any) -> int:
        number = _converted(float, name, value, "a whole number")
        if number != number // 1 or not lowest <= number <= highest:
            raise ValueError(f"{name}: must be a whole number {_range(lowest, highest)}, not {value}")
        return int(value)

    return read


def _range(lowest: float, highest: float, open_below: bool = False) -> str:
    below = f"above {lowest:g}" if open_below else f"from {lowest:g}"
    return below if highest == _ANY else f"{below} to {highest:g}"


def _converted(kind: type[float], name: str, value: Any, wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{name}: must be {wanted}, not {value!r}")
    try:
        # vLLM's backend takes numbers in quotes too.
        return kind(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{name}: must be {wanted}, not {value!r}") from None


def _switch(name: str, value: Any) -> bool:
    words = {"true": True, "false": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if not isinstance(value, bool):
        raise ValueError(f"{name}: must be true or false, not {value!r}")
    return value


def _seed(name: str, value: Any) -> int | None:
    seed: int = _integer(-1, _MAX_SEED)(name, value)
    return None if seed == -1 else seed


def _top_k(name: str, value: Any) -> int:
    return max(0, int(_integer(-1, 2**31)(name, value)))


def _strings(name: str, value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(v, str) and v for v in values):
        raise ValueError(f"{name}: must be a string or a list of strings, none of them empty")
    return tuple(values)


def _token_ids(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{name}: must be a list of token ids")
    return tuple(_integer(0, 2**31)(name, v) for v in value)


def _grammar(name: str, value: Any) -> tuple[str, Any]:
    try:
        given = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"{name}: no JSON: {error}") from error
    kinds = [kind for kind in _GRAMMARS if isinstance(given, dict) and given.get(kind)]
    if len(kinds) != 1:
        raise ValueError(f"{name}: must be an object with one of {', '.join(_GRAMMARS)}")
    return kinds[0], given[kinds[0]]


_ANY = float("inf")
_READERS: dict[str, _Reader] = {
    "temperature": _number(0, _ANY),
    "top_k": _top_k,
    "top_p": _number(0, 1, open_below=True),
    "min_p": _number(0, 1),
    "repetition_penalty": _number(0, _ANY, open_below=True),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "seed": _seed,
    "stop": _strings,
    "stop_token_ids": _token_ids,
    "include_stop_str_in_output": _switch,
    "ignore_eos": _switch,
    "max_tokens": _integer(1, 2**31),
    "min_tokens": _integer(0, 2**31),
    "logprobs": _integer(0, MAX_LOGPROBS),
    "skip_special_tokens": _switch,
    "structured_outputs": _grammar,
}
assert set(_READERS) == {field.name for field in fields(Sampling)}
