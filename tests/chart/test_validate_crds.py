"""The validator of custom resources: what an API server would drop in silence is an error here."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.chart.charts import TOOLS

SCRIPT = Path(__file__).with_name("validate_crds.mjs")
SCALED = {
    "apiVersion": "keda.sh/v1alpha1",
    "kind": "ScaledObject",
    "metadata": {"name": "a"},
    "spec": {"scaleTargetRef": {"name": "a"}, "triggers": [{"type": "cpu", "metadata": {"value": "70"}}]},
}


def said(**changes: Any) -> str:
    line = json.dumps(["a", SCALED | changes])
    command = ["node", str(SCRIPT), str(TOOLS / "node_modules")]
    return subprocess.run(command, input=line, capture_output=True, text=True, check=True).stdout


def test_a_right_object_is_nothing_to_speak_of() -> None:
    assert said() == ""


def test_a_field_that_the_crd_does_not_know_is_named_wherever_it_lies() -> None:
    behavior = {"scaleup": {"selectPolicy": "Max"}}
    advanced = {"horizontalPodAutoscalerConfig": {"behavior": behavior}}
    spec = {**SCALED["spec"], "minReplicas": 1, "advanced": advanced}
    assert said(spec=spec).splitlines() == [
        "a: .spec.minReplicas is not a field",
        "a: .spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleup is not a field",
    ]


def test_a_field_of_the_wrong_type_and_one_that_is_missing_are_errors() -> None:
    assert "spec/pollingInterval must be integer" in said(spec={**SCALED["spec"], "pollingInterval": "5"})
    assert "triggers" in said(spec={"scaleTargetRef": {"name": "a"}})


def test_a_kind_that_no_crd_has_is_an_error() -> None:
    assert said(kind="ScaledObjct") == "a: the CRDs of keda.sh/v1alpha1 have no such kind\n"
    assert "is none of keda.sh" in said(apiVersion="v1")
