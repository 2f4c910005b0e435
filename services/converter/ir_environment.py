"""`python -m services.converter.ir_environment`: installs what the export to OpenVINO's IR needs.

Its packages lie in a folder of their own below CONCH_HOME. Knows pip; knows nothing about models.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from services.errors import NotReady
from services.settings import SharedSettings

_REQUIREMENTS = Path(__file__).with_name("ir_requirements.txt")
_IN_IMAGE = Path("/opt/conch/export")
"""Where the converter's image brings them along: its pods can install nothing."""


def folder(home: Path) -> Path:
    """Returns the folder below `home` to put first on the path; fills it at the first call, in seconds.

    Calls at once wait for each other. Raises NotReady with the line to type if pip cannot fill it.
    """
    if _IN_IMAGE.is_dir():
        return _IN_IMAGE
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:16]
    place = home.absolute() / f"export-{digest}"
    if place.is_dir():
        return place
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".export.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            _fill(place)
    return place


def _fill(place: Path) -> None:
    partial = place.with_name(f"{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    done = subprocess.run(_install_line(partial), capture_output=True, text=True, check=False)
    if done.returncode:
        said = " / ".join(done.stderr.strip().splitlines()[-2:])
        raise NotReady(
            f"the export to OpenVINO's IR needs packages that pip could not install ({said}); "
            f"type: {' '.join(_install_line(place))}",
            reason="EXPORT_PACKAGES_MISSING",
        )
    # Under its own name it is whole.
    partial.rename(place)


def _install_line(target: Path) -> list[str]:
    options = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    return [
        *(sys.executable, "-m", "pip", "install", *options),
        *("--target", str(target), "--requirement", str(_REQUIREMENTS)),
    ]


def main() -> None:
    """Fills the folder; exits 2 with one line if it cannot."""
    try:
        folder(SharedSettings().resolved_home())
    except NotReady as error:
        print(f"converter: {error.message}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
