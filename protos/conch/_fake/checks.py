"""What the real gateway refuses in a request, as the comments of inference.proto have it, for the fake one.

Knows the contract's ranges; knows nothing about answers or sockets.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from conch.errors import FieldViolation, InvalidArgument

_MAX_TEXTS, _MAX_TEXT_BYTES, _MAX_SCHEMA_BYTES = 256, 1 << 20, 64 << 10
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class _Problem:
    field: str
    description: str
    reason: str = "OUT_OF_RANGE"


_Problems = Iterator[_Problem]


def refuse_invalid(rpc: str, request: Any) -> None:
    """Raises InvalidArgument that names every bad field; its reason is the first one's."""
    problems = [] if request.model else [_Problem("model", "is required", "NO_MODEL")]
    problems += _CHECKS[rpc](request)
    if not problems:
        return
    message = "; ".join(f"{p.field}: {p.description}" for p in problems)
    violations = tuple(FieldViolation(p.field, p.description) for p in problems)
    raise InvalidArgument(message, reason=problems[0].reason, field_violations=violations)


def _classify(request: Any) -> _Problems:
    yield from _texts(request, "texts")
    pairs, labels = request.text_pairs, request.candidate_labels
    if pairs and len(pairs) != len(request.texts):
        yield _Problem("text_pairs", f"{len(pairs)} for {len(request.texts)} texts", "PAIRS_MISMATCH")
    if labels and pairs:
        yield _Problem("candidate_labels", "cannot be combined with text_pairs", "NOT_TOGETHER")
    yield from _at_most("candidate_labels", labels, 100)
    template = request.hypothesis_template
    if template and "{}" not in template:
        yield _Problem("hypothesis_template", "has no {} for the label", "NO_PLACEHOLDER")


def _extract_entities(request: Any) -> _Problems:
    yield from _texts(request, "texts")
    yield from _range("min_score", request.min_score, 0, 1)


def _answer_question(request: Any) -> _Problems:
    yield from _texts(request, "questions")
    yield from _texts(request, "contexts")
    if len(request.contexts) not in (1, len(request.questions)):
        found = f"{len(request.contexts)} for {len(request.questions)} questions; send one, or one for each"
        yield _Problem("contexts", found, "CONTEXTS_MISMATCH")
    yield from _range("top_k", request.top_k, 0, 100)
    yield from _range("max_answer_tokens", request.max_answer_tokens, 0, 512)
    yield from _range("no_answer_threshold", request.no_answer_threshold, 0, 1)


def _embed(request: Any) -> _Problems:
    yield from _texts(request, "texts")


def _rank(request: Any) -> _Problems:
    yield from _text("query", request.query)
    yield from _texts(request, "candidates")


def _translate(request: Any) -> _Problems:
    yield from _texts(request, "texts")
    yield from _search(request.options)


def _search(options: Any) -> _Problems:
    yield from _range("options.num_beams", options.num_beams, 0, 16)
    yield from _range("options.max_new_tokens", options.max_new_tokens, 0, 4096)
    yield from _range("options.min_new_tokens", options.min_new_tokens, 0, options.max_new_tokens or 4096)
    yield from _range("options.length_penalty", options.length_penalty, -10, 10)
    yield from _range("options.no_repeat_ngram_size", options.no_repeat_ngram_size, 0, 32)


def _generate(request: Any) -> _Problems:
    yield from _text("prompt", request.prompt)
    yield from _sampling(request.sampling)


def _chat(request: Any) -> _Problems:
    messages = request.messages
    if not 1 <= len(messages) <= 1000:
        yield _Problem("messages", f"{len(messages)} messages, 1 to 1000 are allowed", "NO_MESSAGES")
    elif messages[-1].role == "assistant":
        yield _Problem("messages", "the last message is the assistant's", "NOTHING_TO_ANSWER")
    for i, message in enumerate(messages):
        if message.role not in _ROLES:
            yield _Problem(f"messages[{i}].role", f"{message.role!r}, not one of {', '.join(_ROLES)}")
        yield from _text(f"messages[{i}].content", message.content)
    yield from _sampling(request.sampling)


def _sampling(options: Any) -> _Problems:
    yield from _range("sampling.temperature", options.temperature, 0, 100)
    yield from _range("sampling.top_k", options.top_k, 0, 1_000_000)
    if options.HasField("top_p"):
        yield from _range("sampling.top_p", options.top_p, 0, 1, without_low=True)
    yield from _range("sampling.min_p", options.min_p, 0, 1, without_high=True)
    if options.HasField("repetition_penalty"):
        yield from _range("sampling.repetition_penalty", options.repetition_penalty, 0, 10, without_low=True)
    yield from _at_most("sampling.stop", options.stop, 16)
    if options.HasField("max_tokens"):
        yield from _range("sampling.max_tokens", options.max_tokens, 1, 1 << 32)
        yield from _range("sampling.min_tokens", options.min_tokens, 0, options.max_tokens)
    yield from _range("sampling.num_logprobs", options.num_logprobs, 0, 20)
    if options.json_schema and not _is_schema(options.json_schema):
        yield _Problem("sampling.json_schema", "is no JSON object of at most 64 KiB", "INVALID_SCHEMA")


def _is_schema(text: str) -> bool:
    try:
        return len(text.encode()) <= _MAX_SCHEMA_BYTES and isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _texts(request: Any, field: str) -> _Problems:
    texts: Sequence[str] = getattr(request, field)
    if not texts:
        yield _Problem(field, f"0 {field}, 1 to {_MAX_TEXTS} are allowed", "NO_TEXTS")
    if len(texts) > _MAX_TEXTS:
        yield _Problem(field, f"{len(texts)} {field}, 1 to {_MAX_TEXTS} are allowed", "TOO_MANY_TEXTS")
    for i, text in enumerate(texts):
        yield from _text(f"{field}[{i}]", text)
    for i, text in enumerate(getattr(request, "text_pairs", ())):
        yield from _text(f"text_pairs[{i}]", text)


def _text(field: str, text: str) -> _Problems:
    if not text.strip():
        yield _Problem(field, "is empty or only white space", "EMPTY_TEXT")
    elif (size := len(text.encode())) > _MAX_TEXT_BYTES:
        yield _Problem(field, f"has {size} bytes of UTF-8, at most {_MAX_TEXT_BYTES}", "TEXT_TOO_LONG")


def _at_most(field: str, texts: Sequence[str], most: int) -> _Problems:
    if len(texts) > most:
        yield _Problem(field, f"{len(texts)} given, at most {most} are allowed")
    for i, text in enumerate(texts):
        if not text:
            yield _Problem(f"{field}[{i}]", "is empty", "EMPTY_TEXT")


def _range(
    field: str,
    value: float,
    low: float,
    high: float,
    *,
    without_low: bool = False,
    without_high: bool = False,
) -> _Problems:
    inside = low <= value <= high  # false for NaN
    if not inside or (without_low and value == low) or (without_high and value == high):
        interval = f"{'(' if without_low else '['}{low:g}, {high:g}{')' if without_high else ']'}"
        yield _Problem(field, f"is {value:g}, it must be in {interval}")


_CHECKS: dict[str, Callable[[Any], _Problems]] = {
    "Classify": _classify,
    "ExtractEntities": _extract_entities,
    "AnswerQuestion": _answer_question,
    "Embed": _embed,
    "Rank": _rank,
    "Translate": _translate,
    "Summarize": _translate,
    "Generate": _generate,
    "Chat": _chat,
}
