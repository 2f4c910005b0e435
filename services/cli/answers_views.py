"""Models' answers as people read them: tables, and one line that says who answered. Prints nothing."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from conch.v1 import inference_pb2
from conch.vectors import vectors
from services.cli.views import shorten, table
from services.targets import target_name


def classifications(texts: Sequence[str], answer: inference_pb2.ClassifyResponse) -> RenderableType:
    """Returns one line a text with its labels or its value, then who answered and how long it took."""
    has_values = any(row.HasField("value") for row in answer.classifications)
    lines = table("value", "text") if has_values else table("label", "score", "others", "text")
    for text, row in zip(texts, answer.classifications, strict=True):
        shown = Text(shorten(text) + _cut(row.tokens))
        if has_values:
            lines.add_row(f"{row.value:.3f}", shown)
            continue
        best, *others = row.labels
        rest = " ".join(f"{o.label} {o.score:.3f}" for o in others)
        lines.add_row(Text(best.label), f"{best.score:.3f}", Text(rest), shown)
    return Group(lines, served_by(answer))


def entities(texts: Sequence[str], answer: inference_pb2.ExtractEntitiesResponse) -> RenderableType:
    """Returns one line an entity; a text without any has a line that says so."""
    lines = table("label", "score", "entity", "start", "end", "text")
    for text, row in zip(texts, answer.results, strict=True):
        shown = Text(shorten(text) + _windows(row.tokens))
        for entity in row.entities:
            place = str(entity.start), str(entity.end)
            lines.add_row(Text(entity.label), f"{entity.score:.3f}", Text(entity.text), *place, shown)
            shown = Text("")
        if not row.entities:
            lines.add_row("none", "", "", "", "", shown)
    return Group(lines, served_by(answer))


def answers(questions: Sequence[str], answer: inference_pb2.AnswerQuestionResponse) -> RenderableType:
    """Returns one line an answer; a question without one has a line that says so."""
    lines = table("answer", "score", "start", "end", "no answer", "question")
    for question, row in zip(questions, answer.results, strict=True):
        shown = Text(shorten(question) + _windows(row.tokens))
        none = f"{row.no_answer_score:.3f}"
        for span in row.answers:
            place = str(span.start), str(span.end)
            lines.add_row(Text(span.text), f"{span.score:.3f}", *place, none, shown)
            shown, none = Text(""), ""
        if not row.answers:
            lines.add_row(Text("there is none", "italic"), "", "", "", none, shown)
    return Group(lines, served_by(answer))


def embeddings(texts: Sequence[str], answer: inference_pb2.EmbedResponse) -> RenderableType:
    """Returns one line a text with length and first numbers of its vector."""
    lines = table("numbers", "length", "vector", "text")
    for text, row, numbers in zip(texts, answer.embeddings, vectors(answer), strict=True):
        first = " ".join(f"{number:+.3f}" for number in numbers[:5]) + (" …" if len(numbers) > 5 else "")
        shown = Text(shorten(text) + _cut(row.tokens))
        lines.add_row(str(len(numbers)), f"{math.hypot(*numbers):.3f}", first, shown)
    return Group(lines, served_by(answer))


def ranking(candidates: Sequence[str], answer: inference_pb2.RankResponse) -> RenderableType:
    """Returns one line a candidate, best first; `#` is its place in the request, from 1."""
    lines = table("score", "#", "candidate")
    for row in answer.ranked:
        shown = Text(shorten(candidates[row.index], 90) + _cut(row.tokens))
        lines.add_row(f"{row.score:.3f}", str(row.index + 1), shown)
    return Group(lines, served_by(answer))


def written(texts: Sequence[inference_pb2.GeneratedText], answer: Any) -> str:
    """Returns who wrote the texts, and what is to be known of them: ended early, input cut."""
    remarks = [f"{sum(text.num_generated_tokens for text in texts)} tokens"]
    unfinished = [i for i, t in enumerate(texts, 1) if t.finish_reason == inference_pb2.FINISH_REASON_LENGTH]
    cut = [i for i, t in enumerate(texts, 1) if t.tokens.truncated]
    if unfinished:
        remarks.append(f"ended by --max-new-tokens: {', '.join(map(str, unfinished))}")
    if cut:
        remarks.append(f"input cut: {', '.join(map(str, cut))}")
    return f"{served_by(answer)}; {'; '.join(remarks)}"


def logprobs(tokens: Iterable[inference_pb2.TokenLogprob]) -> RenderableType:
    """Returns one line a token with its probability and those of others in its place."""
    lines = table("token", "probability", "others")
    for token in tokens:
        others = "  ".join(
            f"{other.token!r} {math.exp(other.logprob):.3f}"
            for other in token.alternatives
            if other.token != token.token
        )
        lines.add_row(Text(repr(token.token)), f"{math.exp(token.logprob):.3f}", Text(others))
    return lines


def stream_end(last: Any) -> str:
    """Returns who wrote a stream, how much, how fast and why it ended."""
    piece, timings = last.piece, last.timings
    seconds = timings.total.ToMicroseconds() / 1e6
    first = timings.first_piece.ToMicroseconds() / 1e6
    speed = f" in {seconds:.1f} s, the first after {first:.2f} s" if seconds else ""
    reason = inference_pb2.FinishReason.Name(piece.finish_reason).removeprefix("FINISH_REASON_")
    usage = f"{piece.usage.num_prompt_tokens} tokens read, {piece.usage.num_generated_tokens} written"
    return f"{_server(last.served_by)}; {usage}{speed}; ended by {reason}"


def served_by(answer: Any) -> str:
    """Returns who answered, in which precision, and how long it took."""
    return f"{_server(answer.served_by)} in {answer.timings.total.ToMicroseconds() / 1000:.1f} ms"


def _server(by: inference_pb2.ServedBy) -> str:
    uncertified = " UNCERTIFIED" if by.uncertified else ""
    target = target_name(by.runtime, by.precision)
    return f"served by {by.model}@{by.version} {target} digest {by.artifact_digest[:12]}{uncertified}"


def _cut(tokens: inference_pb2.InputTokens) -> str:
    return f" [cut: {tokens.num_tokens} tokens read]" if tokens.truncated else ""


def _windows(tokens: inference_pb2.InputTokens) -> str:
    return f" [{tokens.num_windows} windows]" if tokens.num_windows > 1 else _cut(tokens)
