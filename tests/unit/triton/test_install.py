"""What is said where Triton's environment cannot be completed."""

from pathlib import Path

import pytest

from services.errors import NotReady
from services.triton import install
from services.triton.environment import Environment


def test_without_the_shared_python_library_the_line_to_type_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment whose packages are there, on a machine where we are not root."""
    (tmp_path / f"ready-{install._digest()}").touch()
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(
        NotReady, match=r"libpython3\.11\.so\.1\.0; type: sudo apt-get install libpython3\.11"
    ):
        install.install(Environment(tmp_path))
