"""Jane Austen's six novels, public domain, as passages of plain text: out of Debian's r-cran-janeaustenr.

Knows apt-get, dpkg-deb and as much of R's data files as lines of text take; nothing of R is run.
"""

import re
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

from examples import apt

_PACKAGE = "r-cran-janeaustenr"
_DATA = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
_PASSAGE_CHARACTERS = 600
# R's serialization, version 3: header, the encoding's name, then a vector of strings.
_HEADER_BYTES, _STRING_VECTOR = 14, 16


def fetch(folder: Path) -> bytes:
    """Returns the package's data file; it is downloaded and read, nothing is installed."""
    with apt.private(folder) as archive:
        archive.run("download", _PACKAGE)
        package = next(archive.folder.glob(f"{_PACKAGE}_*.deb"))
        extracted = archive.folder / "extracted"
        subprocess.run(["dpkg-deb", "--extract", str(package), str(extracted)], check=True)
        return (extracted / _DATA).read_bytes()


def passages(data: bytes) -> Iterator[str]:
    """Yields passages of 600 characters or more, one paragraph or several, each a line."""
    for book in _books(data):
        open_passage: list[str] = []
        for paragraph in re.split(r"\n\s*\n", book):
            line = " ".join(paragraph.split())
            if not line or line.isupper() or re.match(r"(CHAPTER|VOLUME|Chapter|Volume)\b", line):
                continue
            open_passage.append(line.replace("_", ""))
            if sum(map(len, open_passage)) >= _PASSAGE_CHARACTERS:
                yield "\n".join(open_passage)
                open_passage = []


def _books(data: bytes) -> Iterator[str]:
    while data:
        reader = zlib.decompressobj()
        book = reader.decompress(data[4:])  # its length stands before it
        data = reader.unused_data
        yield "\n".join(_strings(book))


def _strings(book: bytes) -> Iterator[str]:
    (name,) = struct.unpack_from(">i", book, _HEADER_BYTES)
    place = _HEADER_BYTES + 4 + name
    kind, count = struct.unpack_from(">ii", book, place)
    assert kind & 0xFF == _STRING_VECTOR, "another version of the package holds other data"
    place += 8
    for _ in range(count):
        _, length = struct.unpack_from(">ii", book, place)
        yield book[place + 8 : place + 8 + length].decode("utf-8", "replace")
        place += 8 + length
