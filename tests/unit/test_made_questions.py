"""Made questions are answered by the entities of their sentences, where they are said to stand."""

from typing import Any

from examples.made_questions import made_questions

_SENTENCES = (
    "Ada/NNP/B-PER Byron/NNP/I-PER visited/VBD/O the/DT/O cold/JJ/O city/NN/O of/IN/O Oslo/NNP/B-LOC ././O",
    "The/DT/O police/NN/O said/VBD/O on/IN/O Monday/NNP/O that/IN/O 30/CD/O people/NNS/O "
    "were/VBD/O hurt/VBN/O ././O",
    "Fans/NNS/O of/IN/O Ajax/NNP/B-ORG (/(/O Amsterdam/NNP/B-LOC )/)/O did/VBD/O n't/RB/O sing/VB/O ././O",
    "A/DT/O headline/NN/O",
)


def conll(num_documents: int) -> str:
    blocks = [
        "\n".join("{} {} X {}".format(*word.rsplit("/", 2)) for word in sentence.split())
        for sentence in _SENTENCES
    ]
    document = "-DOCSTART- -X- -X- O\n\n" + "\n\n".join(blocks * 3)
    return "\n\n".join([document] * num_documents)


def made() -> list[dict[str, Any]]:
    return list(made_questions(conll(30), seed=1))


def test_answers_stand_where_they_are_said_to() -> None:
    for row in made():
        for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
            assert row["context"][start : start + len(text)] == text
            assert text in {"Ada Byron", "Oslo", "Monday", "30", "Ajax", "Amsterdam"}


def test_words_are_put_together_as_they_are_written() -> None:
    contexts = " ".join(row["context"] for row in made())
    assert "Fans of Ajax (Amsterdam) didn't sing." in contexts
    assert "headline" not in contexts


def test_each_template_asks_and_some_questions_have_no_answer() -> None:
    rows = made()
    questions = {row["question"] for row in rows}
    assert {
        "Who visited the cold city of Oslo?",
        "How many people were hurt?",
        "Which place is named with Ajax?",
        "On which day was it: The police said?",
    } <= questions
    assert any(question.startswith("Which organisation is missing:") for question in questions)
    assert 0 < sum(not row["answers"]["text"] for row in rows) < len(rows) / 4


def test_equal_seeds_make_equal_questions() -> None:
    assert made() == made() != list(made_questions(conll(30), seed=2))
