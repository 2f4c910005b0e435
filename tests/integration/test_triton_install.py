"""The environment that `make setup` built, and what a second installation does to it."""

import subprocess
import sys

import pytest

from services.errors import NotReady
from services.triton import install
from services.triton.environment import Environment
from tests.integration.triton import environment


def test_a_second_installation_has_nothing_to_do() -> None:
    assert install.install(Environment(environment())) is False


def test_the_versions_in_it_are_those_that_certificates_are_measured_with() -> None:
    code = "import onnxruntime, openvino; print(onnxruntime.__version__, openvino.__version__.split('-')[0])"
    here, there = (
        subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
        for python in (sys.executable, str(Environment(environment()).python))
    )
    assert here == there


def test_without_the_shared_python_library_the_line_to_type_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_library_missing", lambda _: True)
    monkeypatch.setattr(install, "_shared_library", lambda _: None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(NotReady, match=r"type: sudo apt-get install libpython3\.11"):
        install.install(Environment(environment()))
