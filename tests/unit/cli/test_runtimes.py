"""The choice of the runtime, up to the measuring itself."""

import json
from pathlib import Path

import pytest

from services.cli import runtimes
from services.cli.routed import routed_versions
from services.cli.runtimes import Choice, choose, decide
from services.cli.settings import CliSettings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliSettings:
    monkeypatch.setenv("CONCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CONCH_REPOSITORY_URI", str(tmp_path / "repository"))
    return CliSettings()


def cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"model name\t: Some CPU\nflags\t\t: fpu {flags}\n", encoding="utf-8")
    monkeypatch.setattr(runtimes, "_CPUINFO", path)


def test_what_was_asked_for_is_taken(settings: CliSettings) -> None:
    assert choose("openvino", settings) == Choice("openvino", "asked for")


def test_the_faster_one_wins_and_says_by_how_much() -> None:
    assert decide(2.14) == Choice("openvino", "2.1x onnxruntime here")
    assert decide(0.5) == Choice("onnxruntime", "2.0x openvino here")


@pytest.mark.parametrize(("flags", "runtime"), [("avx2 amx_bf16", "openvino"), ("avx2", "onnxruntime")])
def test_before_anything_is_routed_the_cpu_decides(
    settings: CliSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, runtime: str
) -> None:
    cpu(monkeypatch, tmp_path, flags)
    assert choose("auto", settings).runtime == runtime


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
