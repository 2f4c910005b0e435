"""The choice of the runtime, up to the measuring itself."""

import json
from pathlib import Path

import pytest

from services.cli.routed import routed_versions
from services.cli.runtimes import Choice, choose, decide
from services.cli.settings import CliSettings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliSettings:
    monkeypatch.setenv("CONCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CONCH_REPOSITORY_URI", str(tmp_path / "repository"))
    return CliSettings()


def test_what_was_asked_for_is_taken(settings: CliSettings) -> None:
    assert choose("openvino", settings) == Choice("openvino", "asked for")


def test_the_faster_one_wins_and_says_by_how_much() -> None:
    assert decide(2.14) == Choice("openvino", "openvino measured at 2.1x onnxruntime here")
    assert decide(0.5) == Choice("onnxruntime", "openvino measured at 0.5x onnxruntime here")


def test_a_gain_too_small_to_matter_stays_with_onnxruntime() -> None:
    assert decide(1.1).runtime == "onnxruntime"


def test_without_an_environment_to_measure_in_onnxruntime_is_taken_and_says_why(
    settings: CliSettings,
) -> None:
    choice = choose("auto", settings)
    assert choice.runtime == "onnxruntime"
    assert choice.reason.startswith("could not measure")


def test_a_routed_version_that_cannot_be_read_speaks_for_onnxruntime(settings: CliSettings) -> None:
    routes = {"routes": [{"model": "sentiment", "versions": [{"version": "3", "weight": 1}]}]}
    (settings.resolved_home() / "routes.json").write_text(json.dumps(routes), encoding="utf-8")
    assert routed_versions(settings) == [("sentiment", 3)]
    choice = choose("auto", settings)
    assert choice.runtime == "onnxruntime"
    assert "no version 3 of model sentiment" in choice.reason


def test_a_damaged_routes_file_names_nothing(settings: CliSettings) -> None:
    (settings.resolved_home() / "routes.json").write_text("{", encoding="utf-8")
    assert routed_versions(settings) == []
