"""SQuAD files of both versions are read question by question, and every fault is named by its row."""

import json
from pathlib import Path
from typing import Any

import pytest

from conch.v1 import tasks_pb2, training_pb2
from services.errors import InvalidRequest
from services.tasks import find_task
from services.tasks.reading import TRAIN
from services.trainer.data import Split, read_split

CONTEXT = "🎬 Ada met Bob in Köln."
TASK = find_task("question-answering")


def squad(*paragraphs: Any, **more: Any) -> dict[str, Any]:
    return {"version": "1.1", "data": [{"title": "Ada", "paragraphs": list(paragraphs)}], **more}


def paragraph(*questions: Any) -> dict[str, Any]:
    return {"context": CONTEXT, "qas": list(questions)}


def question(text: str, *answers: tuple[str, int], **more: Any) -> dict[str, Any]:
    return {
        "id": text,
        "question": text,
        "answers": [{"text": answer, "answer_start": start} for answer, start in answers],
        **more,
    }


def read(path: Path, content: Any, **dataset: Any) -> Split:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return read_split(
        training_pb2.Dataset(train_uri=str(path), **dataset),
        TASK,
        tasks_pb2.TaskSpec(),
        name=TRAIN,
        scratch=path.parent / "scratch",
    )


def complaints(split: Split) -> list[str]:
    return [problem.description for problem in split.problems]


def test_both_versions_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    first = paragraph(question("Who met?", ("Ada", 2), ("Ada", 2)), question("Where?", ("Köln", 17)))
    plausible = [{"text": "Bob", "answer_start": 10}]
    second = paragraph(question("Who left?", is_impossible=True, plausible_answers=plausible))
    split = read(tmp_path / "train.json", squad(first, second))
    assert split.problems == []
    assert [(e.text, e.text_pair, e.target, e.row) for e in split.examples] == [
        ("Who met?", CONTEXT, [[2, 5]], 1),
        ("Where?", CONTEXT, [[17, 21]], 2),
        ("Who left?", CONTEXT, [], 3),
    ]


@pytest.mark.parametrize("answers", [[], [{"text": "Bob", "answer_start": 10}]])
def test_what_is_said_to_be_impossible_has_no_answer(tmp_path: Path, answers: Any) -> None:
    asked = {"question": "Who left?", "is_impossible": True, "answers": answers}
    assert read(tmp_path / "x.json", squad(paragraph(asked))).examples[0].target == []


def test_articles_without_paragraphs_are_rows(tmp_path: Path) -> None:
    row = {**question("Who met?", ("Ada", 2)), "context": CONTEXT}
    columns = {"question": "Who met?", "context": CONTEXT, "answers": {"text": ["Bob"], "answer_start": [10]}}
    split = read(tmp_path / "x.json", {"data": [row, columns]})
    assert [e.target for e in split.examples] == [[[2, 5]], [[10, 13]]]


def test_the_format_can_be_named_where_the_file_name_says_nothing(tmp_path: Path) -> None:
    content = squad(paragraph(question("Who met?", ("Ada", 2))))
    assert read(tmp_path / "export", content, format=training_pb2.Dataset.FORMAT_SQUAD).examples


def test_a_json_file_of_one_object_a_line_is_still_jsonl(tmp_path: Path) -> None:
    row = {"question": "Who?", "context": CONTEXT, "answers": [{"text": "Ada", "answer_start": 2}], "data": 1}
    lines = (json.dumps(row) + "\n") * 2
    for name in ("x.json", "x.jsonl"):
        assert len(read(tmp_path / name, lines.encode()).examples) == 2
    assert len(read(tmp_path / "x.json", row).examples) == 1


@pytest.mark.parametrize("content", [b"", b"[]", b'{"data": {}}', b'{"data": [', b'{"data": []}\n{}'])
def test_another_file_is_no_squad_file(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(
        InvalidRequest, match='is no SQuAD file: one JSON object with a list "data"'
    ) as caught:
        read(tmp_path / "x", content, format=training_pb2.Dataset.FORMAT_SQUAD)
    assert caught.value.reason == "UNREADABLE_FILE"


def test_a_squad_file_without_questions_has_no_rows(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="has 0 rows"):
        read(tmp_path / "x.json", squad(paragraph()))


def test_every_fault_is_named_by_its_row(tmp_path: Path) -> None:
    good = question("Who met?", ("Ada", 2))
    split = read(
        tmp_path / "x.json",
        squad(
            paragraph(good, question("Where?", ("Köln", 16)), question("Who?", ("Ada", 99))),
            {"context": "", "qas": [good]},
            {"qas": [good]},
            paragraph(question(" ", ("Ada", 2)), question("Who?", ("", 2)), {"question": "Who?"}, "Who?"),
            "a paragraph",
            paragraph(good),
        ),
    )
    assert [e.row for e in split.examples] == [1, 11]
    assert complaints(split) == [
        "row 2: the context has ' Köl' at 16 where the answer says 'Köln' (offsets count code points)",
        "row 3: an answer starts at 99, but the context ends at 22",
        "row 4: context is empty",
        "row 5: context is missing",
        "row 6: question is empty",
        "row 7: an answer's text is empty",
        "row 8: answers is missing (an empty list says that there is none)",
        "rows 9, 10: is no question: articles of paragraphs with context and qas are wanted, a question "
        "having question and answers",
    ]


def test_bytes_that_are_no_utf8_are_named_by_their_row(tmp_path: Path) -> None:
    content = json.dumps(squad(paragraph(question("Who met?", ("Ada", 2)), question("Qui?", ("Ada", 2)))))
    split = read(tmp_path / "x.json", content.replace("Qui", "Qu\xed").encode("latin-1"))
    assert [e.row for e in split.examples] == [1]
    assert complaints(split) == ["row 2: question is not valid UTF-8"]


def test_a_csv_states_an_answer_and_its_start(tmp_path: Path) -> None:
    lines = ["question,context,answer,answer_start", "Who?,Ada left.,Ada,0", "Where?,Ada left.,,"]
    split = read(tmp_path / "x.csv", "\n".join(lines).encode())
    assert split.problems == []
    assert [e.target for e in split.examples] == [[[0, 3]], []]
