"""The environment that `make setup` built, and what a second installation does to it."""

import subprocess
import sys

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
