"""A setting that cannot be is one readable line, whichever service reads it."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("service", "variable"),
    [
        ("trainer", "CONCH_MAX_CONCURRENT_JOBS"),
        ("converter", "CONCH_MAX_CONCURRENT_JOBS"),
        ("gateway", "CONCH_MAX_TEXTS"),
        ("triton", "CONCH_TRITON_HTTP_PORT"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it_and_exit_code_2(service: str, variable: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", f"services.{service}"],
        env={**os.environ, variable: "none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"{service}: {variable}: ")
    assert ran.stderr.count("\n") == 1
