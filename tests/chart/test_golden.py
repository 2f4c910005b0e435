"""What the chart renders for three clusters, whole; `make golden` writes it anew."""

import os
from pathlib import Path

import pytest

from tests.chart import charts

GOLDEN = Path(__file__).parents[1] / "golden" / "chart"


@pytest.mark.parametrize("name", ["default", "gpu", "prod"])
def test_the_rendering_is_the_golden_one(name: str) -> None:
    rendered = charts.text(file=charts.FILES[name])
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("CONCH_GOLDEN"):
        path.write_text(rendered, encoding="utf-8")
    assert rendered == path.read_text(encoding="utf-8")
