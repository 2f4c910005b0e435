"""SearchOptions of requests to the parameters that an encoder-decoder's search takes, one number a row.

Knows ranges and defaults; knows nothing about search.
"""

import math
from collections.abc import Iterator

from conch.v1 import inference_pb2
from services.errors import InvalidRequest, Violation
from services.tasks.example import Facts
from services.tasks.tensors import TensorSpec

INPUTS = (
    TensorSpec("num_beams", "int64", ("batch", 1)),
    TensorSpec("max_new_tokens", "int64", ("batch", 1)),
    TensorSpec("min_new_tokens", "int64", ("batch", 1)),
    TensorSpec("no_repeat_ngram_size", "int64", ("batch", 1)),
    TensorSpec("length_penalty", "float32", ("batch", 1)),
)
MAX_BEAMS, MAX_TOKENS, _MAX_NGRAM, _MAX_PENALTY = 16, 4096, 32, 10.0


def defaults(facts: Facts) -> dict[str, float]:
    """Returns what a request gets that says nothing about the search."""
    own = facts.spec.text2text_generation
    return {
        "num_beams": own.num_beams,
        "max_new_tokens": own.max_target_length,
        "min_new_tokens": 0,
        "no_repeat_ngram_size": 0,
        "length_penalty": 1.0,
    }


def parameters(options: inference_pb2.SearchOptions, facts: Facts) -> dict[str, float]:
    """Returns what a request asks for, defaults filled in. Raises InvalidRequest."""
    found = defaults(facts)
    found["num_beams"] = options.num_beams or found["num_beams"]
    found["max_new_tokens"] = options.max_new_tokens or found["max_new_tokens"]
    found["min_new_tokens"] = options.min_new_tokens
    found["no_repeat_ngram_size"] = options.no_repeat_ngram_size
    if options.HasField("length_penalty"):
        found["length_penalty"] = float(options.length_penalty)
    if problems := list(_problems(found)):
        raise InvalidRequest(*problems, reason="BAD_SEARCH_OPTIONS")
    return found


def _problems(asked: dict[str, float]) -> Iterator[Violation]:
    if asked["num_beams"] > MAX_BEAMS:
        yield Violation("options.num_beams", f"must be in [1, {MAX_BEAMS}]")
    if asked["max_new_tokens"] > MAX_TOKENS:
        yield Violation("options.max_new_tokens", f"must be in [1, {MAX_TOKENS}]")
    if asked["min_new_tokens"] > asked["max_new_tokens"]:
        most = int(asked["max_new_tokens"])
        yield Violation("options.min_new_tokens", f"must be at most max_new_tokens, which is {most}")
    if asked["no_repeat_ngram_size"] > _MAX_NGRAM:
        yield Violation("options.no_repeat_ngram_size", f"must be in [0, {_MAX_NGRAM}]")
    penalty = asked["length_penalty"]
    if not (math.isfinite(penalty) and abs(penalty) <= _MAX_PENALTY):
        yield Violation("options.length_penalty", f"must be in [{-_MAX_PENALTY:g}, {_MAX_PENALTY:g}]")
