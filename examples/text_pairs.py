"""Texts and what is to be made of them, and small models to begin from: translations and summaries.

Both are package descriptions of the Debian archive (see examples.debian); Conch redistributes none of it.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from examples import small_seq2seq
from examples.assets import cache_folder
from examples.debian import descriptions

_LONGEST = 200
"""Characters of a sentence that is translated: a small model learns short ones in minutes."""


def translations() -> Path:
    """Returns JSONL of some 12,000 rows {"translation": {"en": ..., "de": ...}}: one-line synopses."""
    return _written("debian-translations-en-de.jsonl", _translations)


def summaries() -> Path:
    """Returns JSONL of some 60,000 rows: text (a package's description), summary (its one-line synopsis)."""
    return _written("debian-summaries.jsonl", _summaries)


def small_translator() -> Path:
    """Returns a T5 of 3 M parameters that knows nothing but the pieces of words of `translations`."""
    return _model("t5-small-en-de", translations(), lambda row: row["translation"].values())


def small_summarizer() -> Path:
    """Returns a T5 of 3 M parameters that knows nothing but the pieces of words of `summaries`."""
    return _model("t5-small-summaries", summaries(), lambda row: row.values())


def _translations() -> Iterator[dict[str, Any]]:
    english, german, seen = descriptions("en"), descriptions("de"), set[str]()
    for md5, (text, _) in english.items():
        target = german.get(md5, ("", ""))[0]
        if target and text != target and text not in seen and len(text) <= _LONGEST:
            seen.add(text)
            yield {"translation": {"en": text, "de": target}}


def _summaries() -> Iterator[dict[str, Any]]:
    seen = set[str]()
    for synopsis, text in descriptions("en").values():
        if synopsis and text and not {synopsis, text} & seen:
            seen |= {synopsis, text}
            yield {"text": text, "summary": synopsis}


def _written(name: str, rows: Callable[[], Iterable[dict[str, Any]]]) -> Path:
    path = cache_folder() / name
    if not path.is_file():
        partial = path.with_suffix(f".{os.getpid()}")
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
        partial.write_text("".join(lines), encoding="utf-8")
        partial.rename(path)
    return path


def _model(name: str, data: Path, texts_of: Callable[[Any], Iterable[str]]) -> Path:
    folder = cache_folder() / name
    if not folder.is_dir():
        partial = folder.with_name(f"{name}.{os.getpid()}")
        with data.open(encoding="utf-8") as file:
            rows = itertools.islice(map(json.loads, file), 10_000)
            small_seq2seq.make(partial, itertools.chain.from_iterable(map(texts_of, rows)))
        partial.rename(folder)
    return folder


if __name__ == "__main__":
    print(translations(), small_translator(), summaries(), small_summarizer(), sep="\n")
