"""SQuAD files, versions 1 and 2, to rows: a question each, with its context and its answers.

Knows how the file nests; whether an answer stands where it is said to is the task's to see.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Entry = tuple[Any, Any]
"""A context and a question about it as the file has them; None and the article where it has no paragraphs."""


def load(path: Path) -> list[Any] | None:
    """Returns the articles of a file that is one JSON object with a list "data"; None if it is not."""
    # surrogateescape: bytes that are no UTF-8 come through, so that the row which holds them can be named.
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    data = document.get("data") if isinstance(document, dict) else None
    return data if isinstance(data, list) else None


def entries(articles: Sequence[Any]) -> Iterator[Entry]:
    """Yields what is, or should be, a question, in the order of the file.

    Articles without paragraphs are rows themselves, as some export SQuAD.
    """
    for article in articles:
        if not isinstance(article, Mapping) or "paragraphs" not in article:
            yield None, article
            continue
        for paragraph in _listed(article["paragraphs"]):
            known = paragraph if isinstance(paragraph, Mapping) else {}
            for question in _listed(known.get("qas")):
                yield known.get("context"), question


def row_of(entry: Entry) -> dict[str, Any]:
    """Returns a question as a row. Raises ValueError where there is none."""
    context, question = entry
    if not isinstance(question, Mapping):
        raise ValueError(
            "is no question: articles of paragraphs with context and qas are wanted, a question having "
            "question and answers"
        )
    row = dict(question) if context is None else {**question, "context": context}
    # Version 2 may list plausible answers for what has none; they are wrong ones.
    return {**row, "answers": []} if row.get("is_impossible") is True else row


def _listed(value: Any) -> list[Any]:
    # What is no list is one thing that is no question.
    return value if isinstance(value, list) else [None]
