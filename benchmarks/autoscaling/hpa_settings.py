"""An autoscaling/v2 HorizontalPodAutoscaler as the simulator reads it: from the manifest that Helm renders.

Knows the fields and Kubernetes' defaults for those that are left out; knows nothing about how they are
applied (`benchmarks.autoscaling.hpa`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import yaml

Select = Literal["Max", "Min", "Disabled"]
_SUFFIXES = {"m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "Ki": 1024.0, "Mi": 1024.0**2}


@dataclass(frozen=True)
class Policy:
    """At most `value` pods, or percent of the pods, more or fewer within `period_seconds`."""

    type: Literal["Pods", "Percent"]
    value: int
    period_seconds: float


@dataclass(frozen=True)
class Rules:
    """How fast one direction goes: `behavior.scaleUp` or `behavior.scaleDown`."""

    stabilization_seconds: float
    policies: tuple[Policy, ...]
    select: Select = "Max"
    tolerance: float = 0.1


# Kubernetes' own, where a manifest leaves them out (autoscaling/v2, HPAScalingRules).
DEFAULT_UP = Rules(0.0, (Policy("Percent", 100, 15), Policy("Pods", 4, 15)))
DEFAULT_DOWN = Rules(300.0, (Policy("Percent", 100, 15),))


@dataclass(frozen=True)
class Metric:
    """One signal and its target.

    `kind` says what the target means: "value" = the number itself (Object, External), "average" = the number
    divided by the pods (Object, External), "utilization" = percent of what each pod requested (Resource).
    """

    name: str
    kind: Literal["value", "average", "utilization"]
    target: float


@dataclass(frozen=True)
class HpaSettings:
    """What one HorizontalPodAutoscaler asks for."""

    min_replicas: int
    max_replicas: int
    metrics: tuple[Metric, ...]
    up: Rules = DEFAULT_UP
    down: Rules = DEFAULT_DOWN

    @classmethod
    def parse(cls, document: str | Mapping[str, Any]) -> "HpaSettings":
        """Returns the settings of a manifest, text or parsed. Raises ValueError if it is of another kind."""
        manifest = yaml.safe_load(document) if isinstance(document, str) else document
        kind = f"{manifest.get('apiVersion')} {manifest.get('kind')}"
        if kind != "autoscaling/v2 HorizontalPodAutoscaler":
            raise ValueError(f"wanted an autoscaling/v2 HorizontalPodAutoscaler, got {kind}")
        spec = manifest["spec"]
        behavior = spec.get("behavior") or {}
        return cls(
            spec.get("minReplicas", 1),
            spec["maxReplicas"],
            tuple(_metric(metric) for metric in spec["metrics"]),
            _rules(behavior.get("scaleUp"), DEFAULT_UP),
            _rules(behavior.get("scaleDown"), DEFAULT_DOWN),
        )

    def with_target(self, signal: str, target: float) -> "HpaSettings":
        """Returns a copy with another target of the metric whose name contains `signal`."""
        metrics = (replace(m, target=target) if signal in m.name else m for m in self.metrics)
        return replace(self, metrics=tuple(metrics))


def quantity(text: str | float) -> float:
    """Returns a Kubernetes quantity as a number: "200m" is 0.2. Raises ValueError if it is none."""
    found = re.fullmatch(r"([0-9.]+)(m|k|M|Ki|Mi|)", str(text))
    if not found:
        raise ValueError(f"not a quantity: {text!r}")
    return float(found[1]) * _SUFFIXES[found[2]]


def _metric(spec: Mapping[str, Any]) -> Metric:
    source = spec[spec["type"][0].lower() + spec["type"][1:]]
    name = source["name"] if spec["type"] == "Resource" else source["metric"]["name"]
    target = source["target"]
    if target["type"] == "Utilization":
        return Metric(name, "utilization", float(target["averageUtilization"]))
    if target["type"] == "AverageValue":
        return Metric(name, "average", quantity(target["averageValue"]))
    return Metric(name, "value", quantity(target["value"]))


def _rules(spec: Mapping[str, Any] | None, default: Rules) -> Rules:
    """Returns the rules of a direction; as in Kubernetes, what is left out is as in the default."""
    spec = spec or {}
    policies = tuple(Policy(p["type"], p["value"], p["periodSeconds"]) for p in spec.get("policies") or ())
    return Rules(
        spec.get("stabilizationWindowSeconds", default.stabilization_seconds),
        policies or default.policies,
        spec.get("selectPolicy", default.select),
        quantity(spec.get("tolerance", default.tolerance)),
    )
