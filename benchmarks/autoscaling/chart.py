"""The chart's own autoscaler: the manifest that `helm template` renders, or the copy of it that lies here.

Knows where helm and the chart are; knows nothing about what the settings do. A test holds the copy
against the chart.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from benchmarks.autoscaling.hpa_settings import HpaSettings

COPY = Path(__file__).with_name("hpa.yaml")
CHART = Path(__file__).parents[2] / "charts" / "conch"
# As many pods as the shapes need; the chart allows fewer until it is told.
VALUES = ("autoscaling.kind=hpa", "autoscaling.pools.maxReplicas=16")


def helm() -> Path | None:
    """Returns the helm that scripts/chart_tools.sh installed, None if it is not there."""
    tools = Path(os.environ.get("CONCH_HOME", ".conch")) / "chart-tools"
    return next((path.absolute() for path in tools.glob("venv/bin/helm")), None)


def rendered(command: Path, *values: str) -> dict[str, Any]:
    """Returns the HorizontalPodAutoscaler of the chart's first pool. Raises CalledProcessError."""
    sets = [part for value in (*VALUES, *values) for part in ("--set", value)]
    done = subprocess.run(
        [str(command), "template", "conch", str(CHART), *sets], check=True, capture_output=True, text=True
    )
    return _of_first_pool(done.stdout)


def settings(path: Path | None = None) -> HpaSettings:
    """Returns the settings of a rendered file's first pool; by default those of the chart.

    Raises ValueError if it has no HorizontalPodAutoscaler of a pool.
    """
    return HpaSettings.parse(_of_first_pool((path or COPY).read_text()))


def _of_first_pool(rendering: str) -> dict[str, Any]:
    for document in yaml.safe_load_all(rendering):
        if document and document["kind"] == "HorizontalPodAutoscaler":
            manifest: dict[str, Any] = document
            if "triton" in manifest["spec"]["scaleTargetRef"]["name"]:
                return manifest
    raise ValueError("no HorizontalPodAutoscaler of a pool: render it with --set autoscaling.kind=hpa")
