"""values.yaml is the documentation, and one file of the templates makes one kind."""

import re
from pathlib import Path

import pytest
import yaml

from tests.chart import charts

VALUES = (charts.CHART / "values.yaml").read_text(encoding="utf-8")
MANIFESTS = sorted(
    path for path in (charts.CHART / "templates").rglob("*.yaml") if not path.name.startswith("_")
)


def test_every_value_is_explained_above_it() -> None:
    """Entries that only group others may stand without; `requests` and the like explain themselves."""
    lines = VALUES.splitlines()
    for number, line in enumerate(lines):
        found = re.match(r"( *)([A-Za-z][A-Za-z-]*):( .*)?$", line)
        if found is None or found[2] in _PLAIN or not (found[3] or "").strip():
            continue
        assert lines[number - 1].lstrip().startswith("#"), f"values.yaml:{number + 1}: {line.strip()}"


def test_explanations_are_sentences() -> None:
    blocks = re.findall(r"(?:^ *#.*\n)+", VALUES, re.MULTILINE)
    for block in blocks:
        text = " ".join(line.strip(" #") for line in block.splitlines())
        assert text.endswith((".", ")", "---", "*")), text


def test_the_defaults_need_no_gpu() -> None:
    values = yaml.safe_load(VALUES)
    assert values["poolDefaults"]["gpus"] == 0
    assert values["jobs"]["profileDefaults"]["gpus"] == 0


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_file_makes_one_kind_and_is_called_by_it(path: Path) -> None:
    kinds = set(re.findall(r"^kind: (\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert len(kinds) <= 1
    for kind in kinds:
        assert path.stem.split("-")[-1] in (kind.lower(), _SHORT.get(kind))


def test_notes_say_the_next_step() -> None:
    notes = (charts.CHART / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    assert "helm test" in notes
    assert "helm upgrade" in notes


_SHORT = {"HorizontalPodAutoscaler": "hpa"}
_PLAIN = {"requests", "limits", "name", "runtime", "default"} | {
    "onnxruntime",
    "openvino",
    "tensorrt",
    "vllm",
    "stabilizationWindowSeconds",
    "selectPolicy",
}
