"""Every `if` of the templates, and the chart with one of them decided the other way.

Knows how templates are written; knows nothing about what they make.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chart import charts
from tests.chart.refusals import BY_TEMPLATES

_IF = re.compile(r"(\{\{-?\s*(?:else )?if )(.+?)(\s*-?\}\})")


@dataclass(frozen=True)
class Condition:
    """One `if`: where it stands, which of its file it is, and what it asks."""

    template: str
    number: int
    asks: str

    def __str__(self) -> str:
        return f"{self.template} {self.number}: {self.asks}"


def all_conditions() -> Iterator[Condition]:
    """Yields every `if` and `else if`, by file and place."""
    for path in sorted((charts.CHART / "templates").rglob("*")):
        if path.is_file():
            name = str(path.relative_to(charts.CHART))
            for number, found in enumerate(_IF.finditer(path.read_text(encoding="utf-8"))):
                yield Condition(name, number, found[2])


def copied(folder: Path) -> Path:
    """Returns a copy of the chart in which NOTES.txt is rendered with the rest."""
    chart = folder / "conch"
    shutil.copytree(charts.CHART, chart)
    notes = chart / "templates" / "NOTES.txt"
    text = notes.read_text(encoding="utf-8")
    notes.write_text(f'{{{{ define "notes" }}}}{text}{{{{ end }}}}', encoding="utf-8")
    notes.rename(notes.with_name("_NOTES.txt"))
    document = '{{ dict "apiVersion" "v1" "kind" "ConfigMap" "notes" (include "notes" .) | toJson }}\n'
    (chart / "templates" / "notes.yaml").write_text(document, encoding="utf-8")
    return chart


def decide(chart: Path, condition: Condition, value: bool) -> str:
    """Makes a condition of a copied chart always or never hold; returns what the file said before."""
    path = _path(chart, condition)
    before = path.read_text(encoding="utf-8")
    found = list(_IF.finditer(before))[condition.number]
    decided = f"{found[1]}{'true' if value else 'false'}{found[3]}"
    path.write_text(before[: found.start()] + decided + before[found.end() :], encoding="utf-8")
    return before


def restore(chart: Path, condition: Condition, before: str) -> None:
    """Undoes `decide`."""
    _path(chart, condition).write_text(before, encoding="utf-8")


def cases() -> list[str]:
    """Returns the names of everything that is rendered: values files, then what templates refuse."""
    return [*charts.FILES, *BY_TEMPLATES]


def outcome(chart: Path, case: str) -> str:
    """Returns what a chart renders for a case, or why it does not."""
    bad = BY_TEMPLATES.get(case)
    name, sets = (bad.name, bad.sets) if bad else (case, ())
    try:
        return charts.text(*sets, file=charts.FILES[name], chart=chart)
    except charts.RefusedError as refused:
        return f"refused: {refused}"


def _path(chart: Path, condition: Condition) -> Path:
    path = chart / condition.template
    return path.with_name("_NOTES.txt") if path.name == "NOTES.txt" else path
