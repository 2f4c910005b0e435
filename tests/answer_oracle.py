"""QuestionAnsweringPipeline of transformers 4, which version 5 dropped, in torch, token pair by token pair.

Knows nothing about Conch. `handle_impossible_answer` and `align_to_words` are on; a text found twice keeps
the better score (as in 4.40; later ones add scores up, to more than 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

Place = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """Logits of a window, and for each token its offsets, its word and its text (0, 1, None)."""

    start_logits: Sequence[float]
    end_logits: Sequence[float]
    offsets: Sequence[Place]
    words: Sequence[int | None]
    texts: Sequence[int | None]


def best_spans(
    windows: Sequence[Window], context: str, *, top_k: int, max_tokens: int
) -> tuple[list[tuple[Place, float]], float]:
    """Returns places in the context with their scores, best first, and the score of no answer."""
    found: dict[str, tuple[float, Place]] = {}
    null = 1.0
    for window in windows:
        undesired = torch.tensor([text != 1 for text in window.texts])
        undesired[0] = False
        start, end = (
            torch.softmax(torch.tensor(logits, dtype=torch.float64).masked_fill(undesired, -10000.0), dim=0)
            for logits in (window.start_logits, window.end_logits)
        )
        null = min(null, float(start[0] * end[0]))
        scores = torch.outer(start, end).triu().tril(max_tokens - 1)
        scores[0, :] = scores[:, 0] = 0.0
        scores[undesired, :] = scores[:, undesired] = 0.0
        chars = _words(window)
        for i, j in torch.nonzero(scores).tolist():
            place = chars[window.words[i]][0], chars[window.words[j]][1]
            text, score = context[slice(*place)].lower(), float(scores[i, j])
            if score > found.get(text, (0.0, place))[0]:
                found[text] = (score, place)
    best = sorted(found.values(), key=lambda one: -one[0])[:top_k]
    return [(place, score) for score, place in best], null


def ask(
    checkpoint: Path, question: str, context: str, *, max_length: int, stride: int, top_k: int
) -> tuple[list[tuple[Place, float]], float]:
    """Returns what the pipeline answers over a checkpoint, spans of up to 30 tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(checkpoint).eval()
    read = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    windows = [_answered(model, tokenizer, read, i) for i in range(len(read["input_ids"]))]
    return best_spans(windows, context, top_k=top_k, max_tokens=30)


def _answered(model: Any, tokenizer: Any, read: Any, window: int) -> Window:
    names = tokenizer.model_input_names
    with torch.inference_mode():
        out = model(**{name: torch.tensor([read[name][window]]) for name in names})
    return Window(
        out.start_logits[0].tolist(),
        out.end_logits[0].tolist(),
        read["offset_mapping"][window],
        read.word_ids(window),
        read.sequence_ids(window),
    )


def _words(window: Window) -> dict[int | None, Place]:
    """Returns where each word of the context lies, as far as the window holds it."""
    chars: dict[int | None, Place] = {}
    for (start, end), word, text in zip(window.offsets, window.words, window.texts, strict=True):
        if text == 1:
            first, last = chars.get(word, (start, end))
            chars[word] = (min(first, start), max(last, end))
    return chars
