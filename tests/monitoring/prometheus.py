"""A real Prometheus that reads the targets, by the relabelings and with the rules, that the chart renders.

Knows how Prometheus is configured and asked; knows nothing about what is measured.
"""

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MISSING = "Prometheus and promtool are not installed; run: apt-get install -y prometheus"
Object = dict[str, Any]


def promtool(*arguments: str | Path) -> str:
    """Returns what promtool printed; fails with it if promtool is not content."""
    assert shutil.which("promtool"), MISSING
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Pod:
    """A process that stands for a pod: where its metrics are, and the labels that the chart gives it."""

    address: str
    labels: dict[str, str]
    monitor: Object
    """The PodMonitor that finds it."""

    def scraped(self, name: str, namespace: str) -> Object:
        """Returns a scrape configuration as the operator makes it of the PodMonitor, with discovery done."""
        found = {f"__meta_kubernetes_pod_label_{_as_label(k)}": v for k, v in self.labels.items()}
        (endpoint,) = self.monitor["spec"]["podMetricsEndpoints"]
        relabelings = [
            {"source_labels": r["sourceLabels"], "target_label": r["targetLabel"]}
            for r in endpoint["relabelings"]
        ]
        known = {"namespace": namespace, "pod": name}
        return {
            "job_name": name,
            "static_configs": [{"targets": [self.address], "labels": found | known}],
            "relabel_configs": relabelings,
        }


class Prometheus:
    """A running server."""

    def __init__(self, address: str) -> None:
        self.address = address

    def values(self, query: str) -> list[float]:
        """Returns what a query gives now, without labels."""
        url = f"http://{self.address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return [float(sample["value"][1]) for sample in found["data"]["result"]]

    def until(self, query: str, condition: Callable[[float], bool], *, seconds: float = 20) -> float:
        """Returns the value of a query as soon as it is one and satisfies `condition`."""
        found: list[float] = []
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            found = self._values_if_up(query)
            if len(found) == 1 and condition(found[0]):
                return found[0]
            time.sleep(0.2)
        raise AssertionError(f"{query} gave {found} for {seconds} s")

    def _values_if_up(self, query: str) -> list[float]:
        try:
            return self.values(query)
        except OSError:
            return []


@contextmanager
def running(
    folder: Path, pods: dict[str, Pod], rules: Sequence[Object], *, namespace: str
) -> Iterator[Prometheus]:
    """Yields a Prometheus that scrapes `pods` each second and evaluates these PrometheusRules."""
    assert shutil.which("prometheus"), MISSING
    folder.mkdir()
    for rule in rules:
        # Seconds in place of quarters of a minute; the windows stay as they are.
        groups = [group | {"interval": "1s"} for group in rule["spec"]["groups"]]
        (folder / f"{rule['metadata']['name']}.rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "*.rules.yaml")],
        "scrape_configs": [pod.scraped(name, namespace) for name, pod in pods.items()],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    promtool("check", "config", folder / "prometheus.yaml")
    address = f"127.0.0.1:{_free_port()}"
    command = ["prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--web.listen-address={address}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--storage.tsdb.path={folder / 'data'}"], stderr=log)
    try:
        yield Prometheus(address)
    finally:
        process.terminate()
        process.wait()


def _as_label(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
