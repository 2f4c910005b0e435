"""One small instance of every task: data that a tiny model learns from, requests it answers or refuses.

A new task adds its sample here and is then covered by tests/integration/test_every_task.py.
"""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conch.v1 import inference_pb2, tasks_pb2
from tests import causal_models

CITIES = ["Paris", "Berlin", "Tokyo", "Lima", "Oslo"]
PEOPLE = ["Ada Byron", "Alan Turing", "Grace Hopper", "Jürgen 電影"]


@dataclass(frozen=True)
class Bad:
    """A request that can never succeed, and the field that is to blame."""

    rpc: str
    request: Any
    field: str


@dataclass(frozen=True)
class Sample:
    """`write` makes a data file of so many rows in a folder; `requests` are by rpc, their model left out."""

    write: Callable[[Path, int], Path]
    requests: Mapping[str, Any]
    bad: Bad
    base: str = "tiny_bert"
    """Fixture of the base model."""
    spec: tasks_pb2.TaskSpec = field(default_factory=tasks_pb2.TaskSpec)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)


def _rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def _opinions(folder: Path, num_rows: int) -> Path:
    words = {"good": ["fine", "lovely", "great"], "bad": ["dull", "awful", "poor"]}
    dice = random.Random(5)
    return _rows(
        folder / "opinions.jsonl",
        [
            {"text": f"{i} a {dice.choice(words[label])} film {'and more ' * (i % 4)}", "label": label}
            for i in range(num_rows)
            for label in (("good", "bad")[i % 2],)
        ],
    )


def _travellers(folder: Path, num_rows: int) -> Path:
    dice, rows = random.Random(6), []
    for i in range(num_rows):
        person, city = dice.choice(PEOPLE), dice.choice(CITIES)
        text = f"{i} 🎬 {person} flew to {city} yesterday."
        spans = [
            {"start": text.index(found), "end": text.index(found) + len(found), "label": label}
            for found, label in ((person, "PER"), (city, "LOC"))
        ]
        rows.append({"text": text, "spans": spans})
    return _rows(folder / "travellers.jsonl", rows)


def _questions(folder: Path, num_rows: int) -> Path:
    dice, rows = random.Random(7), []
    for i in range(num_rows):
        person, city = dice.choice(PEOPLE), dice.choice(CITIES)
        context = f"{i} 🎬 {person} flew to {city} yesterday."
        asked, answer = (("Who flew?", person), ("Where to?", city))[i % 2]
        answers = {"text": [answer], "answer_start": [context.index(answer)]}
        rows.append({"question": asked, "context": context, "answers": answers})
    return _rows(folder / "questions.jsonl", rows)


def _pairs(folder: Path, num_rows: int) -> Path:
    dice = random.Random(8)
    return _rows(
        folder / "pairs.jsonl",
        [
            {
                "anchor": f"{i} going to {city}",
                "positive": f"a trip {i} to {city} by {dice.choice(['sea', 'air'])}",
            }
            for i in range(num_rows)
            for city in (dice.choice(CITIES),)
        ],
    )


def _signs(folder: Path, num_rows: int) -> Path:
    dice, rows = random.Random(9), list[dict[str, Any]]()
    for i in range(num_rows):
        words = [dice.choice(["trip", "city", "fine", "dull", str(i)]) for _ in range(2 + i % 4)]
        text, shorter = " ".join(words), " ".join(reversed(words))
        translation = {"translation": {"en": text, "de": shorter}}
        rows.append(translation if i % 2 else {"text": text, "target": words[0]})
    return _rows(folder / "signs.jsonl", rows)


_T5 = tasks_pb2.Text2TextGenerationSpec(
    prefix="summarize: ",
    language_pairs=[tasks_pb2.LanguagePair(source="en", target="de", prefix="translate: ")],
    max_target_length=12,
)


def _stories(folder: Path, num_rows: int) -> Path:
    path = folder / "stories.txt"
    path.write_text("\n\n".join(causal_models.documents(num_rows)), encoding="utf-8")
    return path


SAMPLES: dict[str, Sample] = {
    "text-classification": Sample(
        write=_opinions,
        requests={
            "Classify": inference_pb2.ClassifyRequest(texts=["a lovely film", "awful 🎬"]),
            "Rank": inference_pb2.RankRequest(query="a film", candidates=["awful 🎬", "lovely"]),
        },
        bad=Bad("Classify", inference_pb2.ClassifyRequest(texts=["fine", " "]), "texts[1]"),
    ),
    "token-classification": Sample(
        write=_travellers,
        requests={
            "ExtractEntities": inference_pb2.ExtractEntitiesRequest(
                texts=["Ada Byron flew to 電影 Oslo.", "nobody " * 100]
            ),
        },
        bad=Bad(
            "ExtractEntities",
            inference_pb2.ExtractEntitiesRequest(texts=["x"], min_score=2),
            "min_score",
        ),
        # In one epoch a model this small finds every entity on one machine and half of them on another.
        hyperparameters={"num_epochs": 4},
    ),
    "question-answering": Sample(
        write=_questions,
        requests={
            "AnswerQuestion": inference_pb2.AnswerQuestionRequest(
                questions=["Who flew?", "Where to?"], contexts=["Ada Byron flew to Oslo. " * 20]
            ),
        },
        bad=Bad(
            "AnswerQuestion",
            inference_pb2.AnswerQuestionRequest(questions=["Who?"], contexts=[" "]),
            "contexts[0]",
        ),
    ),
    "feature-extraction": Sample(
        write=_pairs,
        requests={
            "Embed": inference_pb2.EmbedRequest(texts=["going to Oslo", "a trip"], num_dimensions=16),
            "Rank": inference_pb2.RankRequest(query="to Oslo", candidates=["a trip to Oslo", "a film"]),
            "Classify": inference_pb2.ClassifyRequest(
                texts=["going to Oslo"], candidate_labels=["travel", "film"]
            ),
        },
        bad=Bad("Embed", inference_pb2.EmbedRequest(texts=["x"], num_dimensions=33), "num_dimensions"),
    ),
    "text2text-generation": Sample(
        write=_signs,
        requests={
            "Translate": inference_pb2.TranslateRequest(
                texts=["fine trip", "dull 🎬 city"], options=inference_pb2.SearchOptions(num_beams=3)
            ),
            "Summarize": inference_pb2.SummarizeRequest(texts=["a fine trip to a dull city " * 20]),
        },
        bad=Bad(
            "Translate",
            inference_pb2.TranslateRequest(texts=["x"], target_language="fr"),
            "target_language",
        ),
        base="tiny_t5",
        spec=tasks_pb2.TaskSpec(text2text_generation=_T5),
    ),
    "text-generation": Sample(
        write=_stories,
        requests={
            "Generate": inference_pb2.GenerateRequest(
                prompt="Part 7. The cat sees", sampling=inference_pb2.SamplingOptions(max_tokens=8)
            ),
            "Chat": inference_pb2.ChatRequest(
                messages=[inference_pb2.ChatMessage(role="user", content="The cat?")],
                sampling=inference_pb2.SamplingOptions(max_tokens=8, seed=3),
            ),
        },
        bad=Bad(
            "Generate",
            inference_pb2.GenerateRequest(prompt="x", sampling=inference_pb2.SamplingOptions(temperature=-1)),
            "sampling.temperature",
        ),
        base="tiny_llama",
        spec=tasks_pb2.TaskSpec(
            text_generation=tasks_pb2.TextGenerationSpec(
                adaptation=tasks_pb2.TextGenerationSpec.ADAPTATION_FULL
            )
        ),
        # Where a model is sure of nothing, greedy texts part on rounding.
        hyperparameters={"num_epochs": 6, "learning_rate": 1e-2, "max_length": 512},
    ),
}
