"""What the real gateway refuses in a request, as the comments of inference.proto have it, for the fake one.

Knows the contract's ranges; knows nothing about answers or sockets.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
    pairs = request.text_pairs
    if request.candidate_labels:
        yield from _with_reason("BAD_CANDIDATE_LABELS", _zero_shot(request))
    elif pairs and len(pairs) != len(request.texts):
        yield _Problem("text_pairs", f"{len(pairs)} for {len(request.texts)} texts", "PAIRS_MISMATCH")


def _zero_shot(request: Any) -> _Problems:
    labels, template = request.candidate_labels, request.hypothesis_template or "{}"
    yield from _at_most("candidate_labels", labels, 100)
    if len(set(labels)) < len(labels):
        yield _Problem("candidate_labels", "labels must differ")
    if template.count("{}") != 1:
        yield _Problem("hypothesis_template", "must hold {} once")
    if request.text_pairs:
        yield _Problem("text_pairs", "cannot be combined with candidate_labels")


def _extract_entities(request: Any) -> _Problems:
    yield from _texts(request, "texts")
    yield from _range("min_score", request.min_score, 0, 1, reason="BAD_MIN_SCORE")


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
    yield from _with_reason("BAD_SEARCH_OPTIONS", _search(request.options))


def _search(options: Any) -> _Problems:
    yield from _range("options.num_beams", options.num_beams, 0, 16)
    yield from _range("options.max_new_tokens", options.max_new_tokens, 0, 4096)
    yield from _range("options.min_new_tokens", options.min_new_tokens, 0, options.max_new_tokens or 4096)
    yield from _range("options.length_penalty", options.length_penalty, -10, 10)
    yield from _range("options.no_repeat_ngram_size", options.no_repeat_ngram_size, 0, 32)


def _generate(request: Any) -> _Problems:
    yield from _text("prompt", request.prompt)
    yield from _with_reason("BAD_SAMPLING", _sampling(request.sampling))


def _chat(request: Any) -> _Problems:
    messages = request.messages
    if not 1 <= len(messages) <= 1000:
        reason = "TOO_MANY_TEXTS" if messages else "NO_TEXTS"
        yield _Problem("messages", f"{len(messages)} messages, 1 to 1000 are allowed", reason)
    elif messages[-1].role == "assistant":
        last = f"messages[{len(messages) - 1}].role"
        yield _Problem(last, "the last message must not be the assistant's", "BAD_ROLE")
    for i, message in enumerate(messages):
        if message.role not in _ROLES:
            yield _Problem(
                f"messages[{i}].role", f"{message.role!r} is none of {', '.join(_ROLES)}", "BAD_ROLE"
            )
        yield from _text(f"messages[{i}].content", message.content)
    yield from _with_reason("BAD_SAMPLING", _sampling(request.sampling))


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
    if options.max_tokens or not options.HasField("max_tokens"):
        yield from _range("sampling.min_tokens", options.min_tokens, 0, options.max_tokens or 256)
    yield from _range("sampling.num_logprobs", options.num_logprobs, 0, 20)
    if options.json_schema and not _is_schema(options.json_schema):
        yield _Problem("sampling.json_schema", "is no JSON object that says something, of at most 64 KiB")


def _is_schema(text: str) -> bool:
    try:
        return len(text.encode()) <= _MAX_SCHEMA_BYTES and _says_something(json.loads(text))
    except ValueError:
        return False


def _says_something(schema: Any) -> bool:
    return isinstance(schema, dict) and bool(schema)


def _with_reason(reason: str, problems: _Problems) -> _Problems:
    for problem in problems:
        yield replace(problem, reason=reason)


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
    yield from (_Problem(f"{field}[{i}]", "is empty") for i, text in enumerate(texts) if not text)


def _range(
    field: str,
    value: float,
    low: float,
    high: float,
    *,
    without_low: bool = False,
    without_high: bool = False,
    reason: str = "OUT_OF_RANGE",
) -> _Problems:
    inside = low <= value <= high  # false for NaN
    if not inside or (without_low and value == low) or (without_high and value == high):
        interval = f"{'(' if without_low else '['}{low:g}, {high:g}{')' if without_high else ']'}"
        yield _Problem(field, f"is {value:g}, it must be in {interval}", reason)


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
