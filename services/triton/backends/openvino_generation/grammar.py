"""What a text must look like: JSON schemas, regular expressions, choices. llguidance does the work.

Runs inside Triton's python stubs and cannot import Conch. Knows which tokens may come next; knows nothing
about probabilities.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llguidance
import numpy as np
import numpy.typing as npt

# Commas and colons as json.dumps sets them; free white space lets a small model write nothing else.
_JSON = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammars:
    """Makes grammars over a model's vocabulary."""

    def __init__(self, tokenizer_file: Path, *, num_tokens: int, eos: Sequence[int]) -> None:
        text = tokenizer_file.read_text(encoding="utf-8")
        self._tokenizer = llguidance.LLTokenizer(text, n_vocab=num_tokens, eos_token=list(eos))

    def compile(self, kind: str, spec: Any) -> "Grammar":
        """Returns a grammar of structured_outputs. Raises ValueError, which begins with that name."""
        try:
            text = _grammar_text(kind, spec)
        except (ValueError, TypeError) as error:
            raise ValueError(f"structured_outputs: {error}") from error
        matcher = llguidance.LLMatcher(self._tokenizer, text, log_level=0)
        if matcher.is_error():
            raise ValueError(f"structured_outputs: {matcher.get_error().splitlines()[0]}")
        return Grammar(matcher, self._tokenizer.vocab_size)


class Grammar:
    """One text's grammar and how far the text has come."""

    def __init__(self, matcher: Any, num_tokens: int) -> None:
        self._matcher = matcher
        self._num_tokens = num_tokens
        self._bits = np.zeros(-(-num_tokens // 32) * 4, np.uint8)

    def forbidden(self) -> npt.NDArray[np.bool_]:
        """Returns `(vocabulary,)`, true for tokens that may not come next."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        bits = np.unpackbits(self._bits, bitorder="little")[: self._num_tokens]
        return np.equal(bits, 0)

    def accept(self, token: int) -> bool:
        """Takes a token that was chosen; returns whether the text is complete."""
        self._matcher.consume_token(token)
        return bool(self._matcher.is_stopped())


def _grammar_text(kind: str, spec: Any) -> str:
    matcher = llguidance.LLMatcher
    if kind == "json":
        schema = json.loads(spec) if isinstance(spec, str) else spec
        return str(matcher.grammar_from_json_schema(schema, _JSON))
    if kind == "json_object":
        return str(matcher.grammar_from_json_schema({"type": "object"}, _JSON))
    if kind == "regex":
        return str(matcher.grammar_from_regex(str(spec)))
    if not isinstance(spec, list) or not all(isinstance(word, str) and word for word in spec):
        raise ValueError("choice must be a list of strings, none of them empty")
    return str(matcher.grammar_from_lark("start: " + " | ".join(json.dumps(word) for word in spec)))
