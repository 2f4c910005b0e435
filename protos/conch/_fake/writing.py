"""What the fake gateway writes: translations, summaries, and texts piece by piece.

A token is a word with the space before it. Knows the contract's messages; knows nothing about calls.
"""

import re
from collections.abc import Iterator
from itertools import islice

from conch._fake.noise import probability, sentence, tokens_of
from conch._fake.store import SetAnswers
from conch.v1 import inference_pb2

_STOP, _LENGTH = inference_pb2.FINISH_REASON_STOP, inference_pb2.FINISH_REASON_LENGTH
_MAX_TOKENS = 256


def translate(
    request: inference_pb2.TranslateRequest, answers: SetAnswers
) -> inference_pb2.TranslateResponse:
    """Returns the texts set, else each text behind its new language: "[de] Hello"."""
    mark = f"[{request.target_language or 'translated'}]"
    texts = [(text, answers.texts.get(text, f"{mark} {text}")) for text in request.texts]
    return inference_pb2.TranslateResponse(translations=_written(texts, request.options))


def summarize(
    request: inference_pb2.SummarizeRequest, answers: SetAnswers
) -> inference_pb2.SummarizeResponse:
    """Returns the texts set, else the first sentence of each."""
    texts = [(text, answers.texts.get(text, re.split(r"(?<=[.!?])\s", text)[0])) for text in request.texts]
    return inference_pb2.SummarizeResponse(summaries=_written(texts, request.options))


def pieces(
    request: inference_pb2.GenerateRequest | inference_pb2.ChatRequest, answers: SetAnswers
) -> Iterator[inference_pb2.TextPiece]:
    """Yields a piece a word and an empty one at the end, with the reason and the usage."""
    options = request.sampling
    prompt, text = _prompt_and_text(request, answers)
    ends = [text.index(stop) for stop in options.stop if stop in text]
    words = _words(text[: min(ends, default=len(text))])
    most = options.max_tokens if options.HasField("max_tokens") else _MAX_TOKENS
    for word in islice(words, most):
        yield inference_pb2.TextPiece(text=word, logprobs=_logprobs(word, options))
    usage = inference_pb2.Usage(
        num_prompt_tokens=tokens_of(prompt).num_tokens, num_generated_tokens=min(most, len(words) + 1)
    )
    reason = _LENGTH if len(words) >= most else _STOP
    yield inference_pb2.TextPiece(finish_reason=reason, usage=usage)


def _prompt_and_text(
    request: inference_pb2.GenerateRequest | inference_pb2.ChatRequest, answers: SetAnswers
) -> tuple[str, str]:
    """Returns all that was said, and the answer to it: set for the prompt or for the last message."""
    if isinstance(request, inference_pb2.ChatRequest):
        prompt = "\n".join(message.content for message in request.messages)
        asked = request.messages[-1].content
    else:
        prompt = asked = request.prompt
    if asked in answers.texts:
        return prompt, answers.texts[asked]
    if request.sampling.json_schema:
        return prompt, "{}"
    return prompt, " " + sentence(f"{prompt}\0{request.sampling.seed}")


def _written(
    texts: list[tuple[str, str]], options: inference_pb2.SearchOptions
) -> Iterator[inference_pb2.GeneratedText]:
    for text, answer in texts:
        words = _words(answer)
        most = options.max_new_tokens or len(words) + 1
        yield inference_pb2.GeneratedText(
            text="".join(words[:most]),
            score=-0.1 * min(most, len(words) + 1),
            num_generated_tokens=min(most, len(words) + 1),
            finish_reason=_LENGTH if len(words) >= most else _STOP,
            tokens=tokens_of(text),
        )


def _words(text: str) -> list[str]:
    """Returns the words with the space before each; joined they are the text."""
    return re.findall(r"\s*\S+|\s+$", text)


def _logprobs(word: str, options: inference_pb2.SamplingOptions) -> list[inference_pb2.TokenLogprob]:
    if not options.HasField("num_logprobs"):
        return []
    first = -probability(word) / 10
    others = [inference_pb2.TokenLogprob(token=word, logprob=first)] + [
        inference_pb2.TokenLogprob(token=f" other{i}", logprob=first - i)
        for i in range(1, options.num_logprobs)
    ]
    alternatives = others[: options.num_logprobs]
    return [inference_pb2.TokenLogprob(token=word, logprob=first, alternatives=alternatives)]
