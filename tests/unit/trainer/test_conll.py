"""CoNLL files are read sentence by sentence; what is wrong in one is named and the others are kept."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conch.v1 import tasks_pb2, training_pb2
from examples.assets import conll2003
from services.errors import InvalidRequest
from services.tasks import find_task
from services.tasks.reading import TRAIN
from services.trainer.data import Split, read_split

Read = Callable[..., Split]
TASK = find_task("token-classification")


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_(content: str | bytes, *, name: str = "train.conll", **columns: str) -> Split:
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
        dataset = training_pb2.Dataset(train_uri=str(tmp_path / name), columns=columns)
        return read_split(dataset, TASK, tasks_pb2.TaskSpec(), name=TRAIN, scratch=tmp_path / "scratch")

    return read_


@pytest.mark.parametrize("name", ["train.conll", "train.txt"])
def test_the_first_column_is_the_token_and_the_last_its_tag(read: Read, name: str) -> None:
    found = read(
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\n"
        "-DOCSTART- -X- O O\n日本\tx\tB-LOC\r\n👩‍🚀\tx\tO\n",
        name=name,
    )
    assert found.problems == []
    assert [(e.row, e.text, e.target) for e in found.examples] == [
        (3, "EU rejects", [[0, 2, "ORG"]]),
        (8, "日本 👩‍🚀", [[0, 2, "LOC"]]),
    ]


def test_a_sentence_that_cannot_be_read_is_named_by_row_and_token_and_the_others_are_kept(read: Read) -> None:
    found = read(b"a O\nb I-X\n\nc\n\nd B-X\n\ne Q\n\n\xff O\n")
    assert [e.text for e in found.examples] == ["d"]
    complaints = [p.description for p in found.problems]
    assert complaints[0].startswith("row 1: I-X of token 2 'b' stands after O of token 1 'a'")
    assert complaints[1] == "row 4: line 4 has no tag: a token and its tag are wanted"
    assert complaints[2].startswith("row 8: token 1 'e' has the tag 'Q'")
    assert complaints[3] == "row 10: line 10 is not valid UTF-8"


def test_a_token_may_hold_a_space_where_columns_are_parted_by_tabs(read: Read) -> None:
    assert read("1 1/2\tO\nOslo\tB-LOC\n").examples[0].text == "1 1/2 Oslo"


@pytest.mark.parametrize("content", ["", "\n\n", "-DOCSTART- -X- O O\n\n"])
def test_a_file_without_a_sentence_has_no_rows(read: Read, content: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(content)
    assert caught.value.reason == "EMPTY_DATASET"


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ('{"tokens": ["Ada", "flew"], "ner_tags": ["B-PER", "O"]}', [[0, 3, "PER"]]),
        ('{"words": ["Ada", "flew"], "labels": ["S-PER", "O"]}', [[0, 3, "PER"]]),
        ('{"text": "Ada flew", "entities": [{"start": 0, "end": 3, "label": "PER"}]}', [[0, 3, "PER"]]),
    ],
)
def test_json_lines_hold_tags_or_spans(read: Read, line: str, target: list[object]) -> None:
    [example] = read(line + "\n", name="train.jsonl").examples
    assert example.target == target


def test_columns_asked_for_count_and_half_a_set_is_not_enough(read: Read) -> None:
    line = '{"w": ["Ada"], "t": ["B-PER"]}\n'
    assert read(line, name="train.jsonl", tokens="w", tags="t").examples[0].target == [[0, 3, "PER"]]
    with pytest.raises(InvalidRequest) as caught:
        read(line, name="train.jsonl", tokens="w")
    [problem] = caught.value.violations
    assert (
        "no columns for tokens and tags or text and spans; its columns are: 'w', 't'" in problem.description
    )


def test_conll_2003_is_iob2_and_its_unseen_validation_sentences_are_readable(tmp_path: Path) -> None:
    train, validation = conll2003()
    splits = [
        read_split(
            training_pb2.Dataset(train_uri=str(path)),
            TASK,
            tasks_pb2.TaskSpec(),
            name=TRAIN,
            scratch=tmp_path,
        )
        for path in (train, validation)
    ]
    assert [split.problems for split in splits] == [[], []]
    assert len(splits[0].examples) == 14_041
    known = {example.text.casefold() for example in splits[0].examples}
    assert not known & {example.text.casefold() for example in splits[1].examples}
    facts = TASK.settle(splits[0].examples, tasks_pb2.TaskSpec())
    assert list(facts.spec.token_classification.labels) == ["LOC", "MISC", "ORG", "PER"]
