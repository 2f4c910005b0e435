"""The chart as the real helm renders it, and as it refuses to.

Knows helm's command line; knows nothing about what the objects mean.
"""

import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
"""A Kubernetes object: `Any`, for every kind has fields of its own."""

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "conch"
TOOLS = ROOT / os.environ.get("CONCH_HOME", ".conch") / "chart-tools"
CORNERS = sorted((Path(__file__).parent / "values").glob("*.yaml"))
FILES = {"default": None, "gpu": CHART / "values-gpu.yaml", "prod": CHART / "values-prod.yaml"} | {
    path.stem: path for path in CORNERS
}
"""Values files by name; the default has none."""
_PASSWORD = Path(__file__).parent / "password.yaml"
RELEASE = ["conch", "--namespace", "team-a"]


class RefusedError(Exception):
    """Helm rendered nothing; the message is what it said."""


def helm(*arguments: str) -> str:
    """Returns what helm prints. Raises RefusedError with its words if it fails."""
    command = [str(TOOLS / "venv" / "bin" / "helm"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(done.stdout + done.stderr)
    return done.stdout


def text(*sets: str, file: Path | None = None, chart: Path = CHART) -> str:
    """Returns the rendered manifests; `sets` are "path=JSON"."""
    values = [part for one in (_PASSWORD, file) if one for part in ("--values", str(one))]
    chosen = [part for one in sets for part in ("--set-json", one)]
    return helm("template", *RELEASE, str(chart), *values, *chosen)


@functools.cache
def objects(*sets: str, name: str = "default") -> list[Object]:
    """Returns the objects that the values file of this name renders to. Do not change them."""
    return list(parse(text(*sets, file=FILES[name])))


def parse(rendered: str) -> Iterator[Object]:
    """Yields the objects of a rendering."""
    yield from (one for one in yaml.load_all(rendered, yaml.CSafeLoader) if one)


def find(found: list[Object], kind: str, name: str) -> Object:
    """Returns the one object of a kind and name."""
    (one,) = [o for o in found if o["kind"] == kind and o["metadata"]["name"] == name]
    return one


def jobs_of(config_map: Object) -> dict[str, Object]:
    """Returns the Jobs that a ConfigMap of job templates holds, by profile."""
    return {key.removesuffix(".yaml"): yaml.safe_load(value) for key, value in config_map["data"].items()}


def templates(found: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yields kind/name and pod spec of everything that makes pods, Jobs inside ConfigMaps too."""
    for one in found:
        named = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield named, one["spec"]
        elif "template" in (one.get("spec") or {}):
            yield named, one["spec"]["template"]["spec"]
        elif one["kind"] == "ConfigMap" and one["metadata"]["name"].endswith("-jobs"):
            for profile, job in jobs_of(one).items():
                yield f"{named}/{profile}", job["spec"]["template"]["spec"]


def containers(spec: Object) -> list[Object]:
    """Returns all containers of a pod, those that run first too."""
    return [*spec.get("initContainers", ()), *spec["containers"]]
