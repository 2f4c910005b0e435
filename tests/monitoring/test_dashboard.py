"""The dashboard: whole, and every expression one that Prometheus takes."""

from pathlib import Path

import pytest
import yaml

from tests.monitoring import shipped
from tests.monitoring.prometheus import promtool

PANELS = shipped.dashboard()["panels"]


def test_promtool_accepts_every_panel_s_expressions(tmp_path: Path) -> None:
    expressions = [expression for _, expression in shipped.dashboard_expressions()]
    rules = [{"record": f"panel:{i}", "expr": expression} for i, expression in enumerate(expressions)]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(expressions)} rules found" in promtool("check", "rules", file)


def test_panels_have_numbers_and_places_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    cells = [
        (panel["gridPos"]["y"], column)
        for panel in PANELS
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for _, column in cells) == 23


@pytest.mark.parametrize(("title", "expression"), shipped.dashboard_expressions())
def test_every_panel_shows_the_chosen_release_alone(title: str, expression: str) -> None:
    for selector in shipped.selectors(expression):
        assert "namespace" in selector.labels, title
        assert "release" in selector.labels or selector.name.startswith("kube_"), title


def test_rows_tell_of_pools_versions_stages_and_jobs() -> None:
    rows = [panel["title"] for panel in PANELS if panel["type"] == "row"]
    assert rows == ["Callers", "Pools", "Versions", "Streams", "Triton", "Jobs"]
