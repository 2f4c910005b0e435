"""Every way in which a data file can be wrong is found, with row numbers, before anything is trained."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conch.v1 import tasks_pb2, training_pb2
from services.errors import InvalidRequest
from services.tasks import TASKS
from services.tasks.reading import TRAIN
from services.trainer.data import Split, read_split

TASK = TASKS["text-classification"]
GOOD = {"text": "a fine film", "label": "good"}


def read(path: Path, **dataset: Any) -> Split:
    return read_split(
        training_pb2.Dataset(train_uri=str(path), **dataset),
        TASK,
        tasks_pb2.TaskSpec(),
        name=TRAIN,
        scratch=path.parent / "scratch",
    )


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def jsonl(path: Path, *rows: Any) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def complaints(split: Split) -> list[str]:
    assert all(problem.field == "spec.dataset.train_uri" for problem in split.problems)
    return [problem.description for problem in split.problems]


def refusal(path: Path, **dataset: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(path, **dataset)
    return caught.value


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.json", "x.csv", "x.tsv", "x.parquet", "x.CSV"])
def test_all_formats_give_the_same_examples(tmp_path: Path, name: str) -> None:
    rows = [("a fine film", "1"), ('quotes ", tabs\tand\nline breaks', "0"), ("überragend 🎬", "1")]
    path, suffix = tmp_path / name, Path(name).suffix.lower()
    if suffix in (".csv", ".tsv"):
        mark = "\t" if suffix == ".tsv" else ","
        lines = [mark.join('"' + value.replace('"', '""') + '"' for value in row) for row in rows]
        write(path, "\r\n".join([f"text{mark}label", *lines]))
    elif suffix == ".parquet":
        pq.write_table(pa.table({"text": [r[0] for r in rows], "label": [int(r[1]) for r in rows]}), path)
    else:
        jsonl(path, *({"text": text, "label": int(label)} for text, label in rows))
    split = read(path)
    assert [(e.text, e.target, e.row) for e in split.examples] == [
        (*row, i + 1) for i, row in enumerate(rows)
    ]
    assert split.problems == []


def test_a_format_can_be_named_where_the_file_name_says_nothing(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "export", GOOD)
    assert len(read(path, format=training_pb2.Dataset.FORMAT_JSONL).examples) == 1
    assert "cannot tell the format" in refusal(path).message


@pytest.mark.parametrize(
    ("value", "label"),
    [(0, "0"), (1, "1"), (True, "true"), (False, "false"), (2.0, "2"), (2.5, "2.5"), (" good ", "good")],
)
def test_labels_become_text(tmp_path: Path, value: Any, label: str) -> None:
    assert read(jsonl(tmp_path / "x.jsonl", {"text": "a", "label": value})).examples[0].target == label


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"text": None, "label": 1}, "text is missing"),
        ({"label": 1}, "text is missing"),
        ({"text": "", "label": 1}, "text is empty"),
        ({"text": " \n\t", "label": 1}, "text is empty"),
        ({"text": 7, "label": 1}, "text is not a string but int"),
        ({"text": ["a"], "label": 1}, "text is not a string but list"),
        ({"text": "a", "label": None}, "label is missing"),
        ({"text": "a"}, "label is missing"),
        ({"text": "a", "label": "  "}, "label is missing"),
        ({"text": "a", "label": float("nan")}, "label is missing"),
        ({"text": "a", "label": {"is": 1}}, "label is not a string or number but dict"),
        ({"text": "half a \ud83d pair", "label": 1}, "text is not valid UTF-8"),
        ({"text": "a", "label": "\udfff"}, "label is not valid UTF-8"),
        ([1, 2], "is a JSON list, not an object (one object a line is wanted)"),
    ],
)
def test_a_bad_row_is_named_by_its_number(tmp_path: Path, row: Any, complaint: str) -> None:
    split = read(jsonl(tmp_path / "x.jsonl", GOOD, row, GOOD))
    assert complaints(split) == [f"row 2: {complaint}"]
    assert [e.row for e in split.examples] == [1, 3]


def test_a_json_array_is_told_that_objects_by_line_are_wanted(tmp_path: Path) -> None:
    split = read(write(tmp_path / "x.json", json.dumps([GOOD, GOOD], indent=1)))
    assert "one object a line is wanted" in complaints(split)[0]


def test_broken_lines_and_bytes_that_are_no_utf8_keep_their_line_numbers(tmp_path: Path) -> None:
    good = json.dumps(GOOD).encode()
    lines = [good, b'{"text": "a', b"", b'{"text": "caf\xe9", "label": "x"}', good]
    split = read(write(tmp_path / "x.jsonl", b"\n".join(lines)))
    assert complaints(split) == [
        "row 2: is no JSON object (one object a line is wanted)",
        "row 4: is not valid UTF-8",
    ]
    assert [e.row for e in split.examples] == [1, 5]


def test_many_bad_rows_are_shown_by_the_first_few_and_their_count(tmp_path: Path) -> None:
    split = read(jsonl(tmp_path / "x.jsonl", *[{"text": "", "label": 1}] * 12, GOOD))
    assert complaints(split) == ["rows 1, 2, 3, 4, 5, ... (12 in all): text is empty"]


def test_several_kinds_of_bad_rows_are_found_at_once(tmp_path: Path) -> None:
    split = read(jsonl(tmp_path / "x.jsonl", {"text": "", "label": 1}, {"text": "a"}, GOOD))
    assert complaints(split) == ["row 1: text is empty", "row 2: label is missing"]


def test_a_csv_row_with_other_fields_than_its_header_is_named(tmp_path: Path) -> None:
    split = read(write(tmp_path / "x.csv", "text,label\na,1\nb,1,2\n\nc\nd,0\n"))
    assert complaints(split) == [
        "row 2: has 3 fields where the header has 2",
        "row 3: has 1 fields where the header has 2",
    ]


def test_a_csv_quote_that_never_closes_is_named(tmp_path: Path) -> None:
    split = read(write(tmp_path / "x.csv", 'text,label\na,1\n"b,0\nc,1\n'))
    assert complaints(split)[0].startswith("row 2: is no CSV")


def test_csv_bytes_that_are_no_utf8_are_named_by_row(tmp_path: Path) -> None:
    split = read(write(tmp_path / "x.csv", b"text,label\na,1\ncaf\xe9,0\n"))
    assert complaints(split) == ["row 2: text is not valid UTF-8"]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "x.csv", b"\xef\xbb\xbftext,label\na,1\n")).examples) == 1


def test_a_field_longer_than_128_kib_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", f"text,label\n{'long ' * 50_000},1\n")
    assert len(read(path).examples[0].text) == 250_000


def test_parquet_nulls_and_broken_bytes_are_named_by_row(tmp_path: Path) -> None:
    raw = pa.array([b"a", None, b"caf\xe9"], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"text": broken, "label": [1.0, 0.0, 1.0]}), tmp_path / "x.parquet")
    split = read(tmp_path / "x.parquet")
    assert complaints(split) == ["row 2: text is missing", "row 3: text is not valid UTF-8"]
    assert split.examples[0].target == "1"


def test_parquet_categories_are_read_as_text(tmp_path: Path) -> None:
    labels = pa.array(["good", "bad"]).dictionary_encode()
    pq.write_table(pa.table({"text": ["a", "b"], "label": labels}), tmp_path / "x.parquet")
    assert [e.target for e in read(tmp_path / "x.parquet").examples] == ["good", "bad"]


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    assert "is no Parquet file" in refusal(write(tmp_path / "x.parquet", "text,label")).message


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str) -> None:
    error = refusal(write(tmp_path / name, "text,label\n" if name == "x.csv" else "\n\n"))
    assert error.reason == "EMPTY_DATASET"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path / "x.csv")
    assert error.reason == "UNREADABLE_URI"
    assert error.violations[0].field == "spec.dataset.train_uri"


def test_a_missing_column_is_answered_with_the_columns_that_are_there(tmp_path: Path) -> None:
    error = refusal(write(tmp_path / "x.csv", "id,words\n1,a\n"))
    assert error.reason == "MISSING_COLUMN"
    assert len(error.violations) == 2
    assert all("'id', 'words'" in v.description for v in error.violations)


def test_columns_are_guessed_without_regard_to_case_and_named_where_the_guess_is_wrong(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "x.csv", "Review,summary,Sentiment\nlong,short,good\n")
    assert read(path).examples[0].text == "long"
    assert read(path, columns={"text": "summary"}).examples[0].text == "short"


@pytest.mark.parametrize("columns", [{"text": "body"}, {"text_pair": "other"}, {"words": "text"}])
def test_a_named_column_that_is_not_there_is_refused(tmp_path: Path, columns: dict[str, str]) -> None:
    error = refusal(jsonl(tmp_path / "x.jsonl", GOOD), columns=columns)
    assert [v.field for v in error.violations] == ["spec.dataset.columns"]


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    assert "more than one" in refusal(write(tmp_path / "x.csv", "text,label,text\na,1,b\n")).message


def test_pairs_are_read_and_an_empty_second_text_is_named(tmp_path: Path) -> None:
    rows = [{"premise": "a", "hypothesis": second, "label": 1} for second in ("b", "")]
    split = read(jsonl(tmp_path / "x.jsonl", *rows))
    assert [(e.text, e.text_pair) for e in split.examples] == [("a", "b")]
    assert complaints(split) == ["row 2: text_pair is empty"]
