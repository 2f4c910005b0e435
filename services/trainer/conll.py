"""CoNLL files to rows: a token a line, its tag in the last column, sentences apart by empty lines.

Knows lines and columns; which tags make sense is the task's to say.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from services.tasks.reading import is_unicode

COLUMNS = ("tokens", "tags")
_DOCUMENT = "-DOCSTART-"

Sentence = list[tuple[int, str]]
"""The lines of a sentence with their numbers."""


def sentences(lines: Iterable[str]) -> Iterator[tuple[int, Sentence]]:
    """Yields each sentence with the number of its first line, from 1; -DOCSTART- lines end one, too."""
    sentence: Sentence = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith(_DOCUMENT):
            sentence.append((number, line))
        elif sentence:
            yield sentence[0][0], sentence
            sentence = []
    if sentence:
        yield sentence[0][0], sentence


def row_of(sentence: Sentence) -> dict[str, Any]:
    """Returns the tokens and tags of a sentence. Raises ValueError that names the line at fault."""
    pairs = [_token(number, line) for number, line in sentence]
    return {"tokens": [token for token, _ in pairs], "tags": [tag for _, tag in pairs]}


def _token(number: int, line: str) -> tuple[str, str]:
    if not is_unicode(line):
        raise ValueError(f"line {number} is not valid UTF-8")
    # Columns are parted by tabs or by blanks, and a token may hold a blank of another kind, such as U+00A0.
    columns = line.strip("\r\n").split("\t") if "\t" in line else line.strip("\r\n ").split(" ")
    columns = [column for column in columns if column]
    if len(columns) < 2:
        raise ValueError(f"line {number} has no tag: a token and its tag are wanted")
    return columns[0], columns[-1]
