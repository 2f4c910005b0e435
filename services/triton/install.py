"""`python -m services.triton.install`: builds Triton's own environment; quick when it is there already.

Triton's python stubs want numpy < 2 and the shared library of Python 3.11, which only Debian's
libpython3.11 or a shared build of Python brings. Knows pip and apt; starts nothing.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from services.errors import NotReady
from services.triton.environment import Environment
from services.triton.settings import TritonSettings

_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_LIBRARY = "libpython3.11.so.1.0"
_PACKAGE = "libpython3.11"
_PROBE = (
    "import numpy, onnxruntime, openvino, tokenizers, llguidance; "
    "assert numpy.__version__ < '2', numpy.__version__"
)


def install(environment: Environment) -> bool:
    """Makes `environment` complete; returns whether there was anything to do.

    Two installations at once wait for each other. Raises NotReady with the line to type if something
    is missing that only root can install.
    """
    marker = environment.root / f"ready-{_digest()}"
    if marker.exists() and not _library_missing(environment):
        return False
    environment.root.mkdir(parents=True, exist_ok=True)
    with (environment.root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists():
            _install_packages(environment)
        _provide_library(environment)
        _run([environment.python, "-c", _PROBE], "Triton's environment does not work")
        _mark(marker)
    return True


def _digest() -> str:
    return hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:16]


def _mark(marker: Path) -> None:
    for stale in marker.parent.glob("ready-*"):
        stale.unlink()
    marker.touch()


def _install_packages(environment: Environment) -> None:
    _check_platform()
    if not _works(environment.python):
        for part in ("bin", "include", "lib", "lib64", "pyvenv.cfg"):
            _remove(environment.root / part)
        _run([_python(), "-m", "venv", environment.root], "cannot make a virtual environment")
    pip: list[str | Path] = [
        environment.python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ]
    _run([*pip, "--requirement", _REQUIREMENTS], "cannot install Triton's packages")
    # Triton starts the stub that lies beside the python backend's library.
    shutil.copy2(environment.stub, environment.python_backend)


def _provide_library(environment: Environment) -> None:
    if not _library_missing(environment):
        return
    if shared := _shared_library(environment):
        # The stub looks for its libraries there too (its RPATH).
        link = environment.libraries / _LIBRARY
        link.unlink(missing_ok=True)
        link.symlink_to(shared)
    else:
        _install_debian_package()
    if _library_missing(environment):
        raise NotReady(f"Triton needs {_LIBRARY}; type: {_apt_line()}", reason="LIBRARY_MISSING")


def _library_missing(environment: Environment) -> bool:
    stub = environment.python_backend / environment.stub.name
    listing = subprocess.run(["ldd", stub], capture_output=True, text=True, check=False).stdout
    return not any(_LIBRARY in line and "not found" not in line for line in listing.splitlines())


def _shared_library(environment: Environment) -> Path | None:
    """Returns the library of the Python that the environment stands on, if that was built shared."""
    code = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    library = Path(_says(str(environment.python), code)) / _LIBRARY
    return library if library.is_file() else None


def _install_debian_package() -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotReady(f"Triton needs {_LIBRARY}; type: {_apt_line()}", reason="LIBRARY_MISSING")
    _run(["apt-get", "update", "-qq"], "apt-get update failed")
    variables = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", _PACKAGE]
    _run(command, f"cannot install {_PACKAGE}", variables)


def _apt_line() -> str:
    return f"sudo apt-get install {_PACKAGE}"


def _check_platform() -> None:
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < (2, 35):
        raise NotReady(
            f"Triton from PyPI needs glibc 2.35 or newer (Debian 12, Ubuntu 22.04), here is {name} {version}",
            reason="PLATFORM_UNSUPPORTED",
        )


def _python() -> str:
    candidates = [sys.executable, shutil.which("python3.11"), "/usr/bin/python3.11"]
    for candidate in filter(None, candidates):
        if _says(candidate, "import sys; print(sys.version_info[:2] == (3, 11))") == "True":
            return candidate
    line = "sudo apt-get install python3.11 python3.11-venv"
    raise NotReady(f"Triton's environment needs Python 3.11; type: {line}", reason="PYTHON_MISSING")


def _works(python: Path) -> bool:
    return _says(str(python), "import pip; print(True)") == "True"


def _says(python: str, code: str) -> str:
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _run(command: Sequence[str | Path], complaint: str, variables: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    if done.returncode:
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise NotReady(f"{complaint}: {' / '.join(tail)}", reason="INSTALLATION_FAILED")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def main() -> None:
    """Builds the environment that the settings name; exits 2 with one line if it cannot."""
    environment = Environment(TritonSettings().resolved_env())
    try:
        if install(environment):
            print(f"triton: environment ready in {environment.root}", file=sys.stderr)
    except NotReady as error:
        print(f"triton: {error.message}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
