"""What the chart renders for a cluster whose autoscaler and Prometheus are ours: one pool, and one at zero.

Knows where queries stand in an HPA, in the adapter's rules and in a ScaledObject.
"""

import functools
import re
from typing import Any, Literal

from tests.chart.charts import find, objects
from tests.monitoring import shipped

Object = dict[str, Any]
NAMESPACE, RELEASE = "team-a", "conch"
_VALUES = (
    'pools=[{"name": "cpu"}, {"name": "gpu"}]',
    "autoscaling.pools.minReplicas=%d",
    "monitoring.scrape.enabled=true",
    "monitoring.rules.enabled=true",
)


@functools.cache
def chart(kind: Literal["hpa", "keda"]) -> list[Object]:
    """Returns all objects, autoscaled by `kind`."""
    values = [value % (1 if kind == "hpa" else 0) if "%d" in value else value for value in _VALUES]
    return objects(*values, f'autoscaling.kind="{kind}"')


def rules() -> list[Object]:
    """Returns the PrometheusRules."""
    return [one for one in chart("keda") if one["kind"] == "PrometheusRule"]


def pod_labels(workload: str) -> dict[str, str]:
    """Returns the labels of a Deployment's pods."""
    template = find(chart("keda"), "Deployment", workload)["spec"]["template"]
    return dict(template["metadata"]["labels"])


def monitor(component: str) -> Object:
    """Returns a component's PodMonitor."""
    return find(chart("keda"), "PodMonitor", f"{RELEASE}-{component}")


def keda_queries(workload: str) -> dict[str, str]:
    """Returns the queries of a ScaledObject by trigger."""
    triggers = find(chart("keda"), "ScaledObject", workload)["spec"]["triggers"]
    return {t["name"]: t["metadata"]["query"] for t in triggers if t["type"] == "prometheus"}


def hpa_queries(workload: str) -> dict[str, str]:
    """Returns, by external metric of an HPA, what prometheus-adapter asks Prometheus for it."""
    metrics = find(chart("hpa"), "HorizontalPodAutoscaler", workload)["spec"]["metrics"]
    wanted = [m["external"]["metric"] for m in metrics if m["type"] == "External"]
    return {one["name"]: _adapted(one["name"], one["selector"]["matchLabels"]) for one in wanted}


def _adapted(metric: str, labels: dict[str, str]) -> str:
    """Returns the query that the adapter makes of its rule, the HPA's namespace and its selector."""
    (rule,) = [rule for rule in shipped.adapter_rules() if rule["name"]["as"] == metric]
    assert rule["resources"]["overrides"] == {"namespace": {"resource": "namespace"}}
    series = re.search(r'__name__="([^"]+)"', rule["seriesQuery"])
    assert series
    matchers = ",".join(f'{name}="{value}"' for name, value in {"namespace": NAMESPACE, **labels}.items())
    return str(rule["metricsQuery"].replace("<<.Series>>", series[1]).replace("<<.LabelMatchers>>", matchers))
