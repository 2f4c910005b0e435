"""Each `if` of the templates matters, either way: decided by force it changes what some case renders.

The golden table says which case shows it; `make golden` looks for them anew.
"""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chart import conditions
from tests.chart.conditions import Condition

TABLE = Path(__file__).parents[1] / "golden" / "chart" / "conditions.json"
CONDITIONS = {str(condition): condition for condition in conditions.all_conditions()}
Outcome = Callable[[str], str]


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return conditions.copied(tmp_path_factory.mktemp("chart"))


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What a case renders with all conditions as they are."""
    untouched = conditions.copied(tmp_path_factory.mktemp("untouched"))
    return functools.cache(lambda case: conditions.outcome(untouched, case))


def test_the_golden_table_has_each_condition_and_no_other(chart: Path, usual: Outcome) -> None:
    if os.environ.get("CONCH_GOLDEN"):
        table = {name: _found(chart, usual, one) for name, one in CONDITIONS.items()}
        TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        _table.cache_clear()
    assert list(_table()) == list(CONDITIONS), "type: make golden"


@pytest.mark.parametrize("name", CONDITIONS)
def test_an_if_matters_either_way(name: str, chart: Path, usual: Outcome) -> None:
    shown_by = _table().get(name, {"true": None, "false": None})
    for value in (True, False):
        case = shown_by[str(value).lower()]
        assert case, f"no case shows what {name} changes when it is {value}"
        assert _shows(chart, usual, CONDITIONS[name], value, [case]), (name, value, case)


def _found(chart: Path, usual: Outcome, condition: Condition) -> dict[str, str | None]:
    known = _table().get(str(condition), {})
    found = {}
    for value in ("true", "false"):
        # What showed it last time most likely still does, and looking takes minutes.
        likely = [case for case in (known.get(value),) if case in conditions.cases()]
        cases = [*likely, *conditions.cases()]
        found[value] = _shows(chart, usual, condition, value == "true", cases)
    return found


def _shows(chart: Path, usual: Outcome, condition: Condition, value: bool, cases: list[str]) -> str | None:
    """Returns the first case that renders otherwise once the condition is decided."""
    before = conditions.decide(chart, condition, value)
    try:
        return next((case for case in cases if conditions.outcome(chart, case) != usual(case)), None)
    finally:
        conditions.restore(chart, condition, before)


@functools.cache
def _table() -> dict[str, dict[str, str | None]]:
    table: dict[str, dict[str, str | None]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table
