"""Objects held against the schemas of Kubernetes and of the operators beside it, many at a time.

Knows how the two validators are called; knows nothing about the chart's objects.
"""

import json
import subprocess
from pathlib import Path

from tests.chart.charts import TOOLS, Object

VERSIONS = ("1.32", "1.35", "1.36", "1.37")
"""The oldest that Chart.yaml allows, and the newest three."""
_HERE = Path(__file__).parent


def kubernetes(found: list[tuple[str, Object]]) -> str:
    """Returns a line for each violation of Kubernetes' strict schemas, of any of the versions."""
    script = str(_HERE / "kubernetes_schemas.py")
    return _said([str(TOOLS / "venv" / "bin" / "python"), script, *VERSIONS], found)


def custom(found: list[tuple[str, Object]]) -> str:
    """Returns a line for each violation of the CRDs of KEDA, the Prometheus operator and the Gateway API."""
    return _said(["node", str(_HERE / "validate_crds.mjs"), str(TOOLS / "node_modules")], found)


def _said(command: list[str], found: list[tuple[str, Object]]) -> str:
    lines = "".join(json.dumps(pair) + "\n" for pair in found)
    return subprocess.run(command, input=lines, capture_output=True, text=True, check=True).stdout
