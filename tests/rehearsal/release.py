"""What Helm makes of the chart: the objects of one revision, by kind and name.

Knows helm's command line; knows nothing about what becomes of the objects.
"""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
_CHART = Path(__file__).parents[2] / "charts" / "conch"
_HOOK = "helm.sh/hook"


@dataclass(frozen=True)
class Revision:
    """The objects of one revision, in the order in which Helm applies them."""

    objects: tuple[Object, ...]
    hooks: tuple[Object, ...]

    def all(self, kind: str) -> list[Object]:
        """Returns the objects of a kind."""
        return [one for one in self.objects if one["kind"] == kind]

    def hook(self, kind: str, part: str) -> Object:
        """Returns the hook of a kind with `part` in its name."""
        return next(one for one in self.hooks if one["kind"] == kind and part in one["metadata"]["name"])


def render(values: Mapping[str, Any], folder: Path, *, release: str = "conch") -> Revision:
    """Returns what `helm template` makes of `values`. Raises AssertionError with its words if it refuses."""
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    command = [str(_helm()), "template", release, str(_CHART), "--is-upgrade", "--values", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    objects = [one for one in yaml.safe_load_all(done.stdout) if one]
    return Revision(
        tuple(one for one in objects if _HOOK not in _annotations(one)),
        tuple(_by_weight(one for one in objects if _HOOK in _annotations(one))),
    )


def _by_weight(hooks: Iterable[Object]) -> list[Object]:
    return sorted(hooks, key=lambda hook: int(_annotations(hook).get("helm.sh/hook-weight", 0)))


def _annotations(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def _helm() -> Path:
    tools = Path(os.environ.get("CONCH_HOME", ".conch")) / "chart-tools"
    found = [path for path in (tools / "bin" / "helm", tools / "venv" / "bin" / "helm") if path.exists()]
    assert found, f"no helm in {tools}: run scripts/chart_tools.sh"
    return found[0].absolute()
