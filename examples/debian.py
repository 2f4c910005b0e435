"""Package descriptions of the Debian archive: real text in pairs, fetched by apt without a privilege.

apt reads the machine's own sources and writes into CONCH_HOME/cache alone. Conch redistributes none of it.
"""

import contextlib
import json
import os
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from examples import apt
from examples.assets import cache_folder

_STANZA = re.compile(r"^Description-md5: (\w+)\nDescription-[\w-]+: (.*)\n((?: .*\n?)*)", re.MULTILINE)


def package_searches(num_pairs: int = 12_000) -> Path:
    """Returns JSONL of pairs: query (a package's one-line synopsis), passage (its description).

    A sample of the some 60,000 that there are; no query and no passage stands there twice.
    """
    path = cache_folder() / f"debian-package-searches-{num_pairs}.jsonl"
    if not path.is_file():
        pairs = sorted(_different(descriptions("en").values()))
        partial = path.with_suffix(f".{os.getpid()}")
        with partial.open("w", encoding="utf-8") as file:
            for query, passage in random.Random(1).sample(pairs, num_pairs):
                file.write(json.dumps({"query": query, "passage": passage}, ensure_ascii=False) + "\n")
        partial.rename(path)
    return path


def descriptions(language: str) -> dict[str, tuple[str, str]]:
    """Returns (synopsis, description) by the md5 of the English original, in any language of the archive."""
    found = {}
    for path in _lists(language).glob(f"*_main_i18n_Translation-{language}"):
        for md5, synopsis, text in _STANZA.findall(path.read_text(encoding="utf-8")):
            found[md5] = (synopsis.strip(), _unwrapped(text))
    return found


def _different(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for synopsis, text in pairs:
        if synopsis and text and not {synopsis, text} & seen:
            seen |= {synopsis, text}
            yield synopsis, text


def _unwrapped(text: str) -> str:
    """Returns a description without Debian's marks: lines begin with a space, " ." parts paragraphs."""
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line for line in lines if line and line != ".")


def _lists(language: str) -> Path:
    """Returns the folder with the archive's lists, fetched once a language (2 s, 15 MB)."""
    folder = cache_folder() / f"debian-lists-{language}"
    if not folder.is_dir():
        with apt.private(folder, languages=language) as archive, contextlib.suppress(OSError):
            archive.lists.rename(folder)  # fails where another process was faster
    return folder


if __name__ == "__main__":
    print(package_searches())
