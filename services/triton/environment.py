"""Where things lie in Triton's own virtual environment.

It is apart from the services' environment because Triton's python backend needs numpy < 2: with
numpy 2 its answers are empty and no error is raised. Knows paths; installs and starts nothing.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """Triton's virtual environment at `root`."""

    root: Path

    @property
    def bin(self) -> Path:
        """Must stand first on PATH when Triton starts: its python stubs find their packages by it."""
        return self.root / "bin"

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.bin / "python"

    @property
    def triton(self) -> Path:
        """Folder of the server, its python backend and caches, as nvidia-pytriton lays them out."""
        return self.root / "lib" / "python3.11" / "site-packages" / "pytriton" / "tritonserver"

    @property
    def server(self) -> Path:
        """The tritonserver binary."""
        return self.triton / "bin" / "tritonserver"

    @property
    def python_backend(self) -> Path:
        """Triton's python backend, on which ours are based."""
        return self.triton / "backends" / "python"

    @property
    def stub(self) -> Path:
        """The python 3.11 stub as it is shipped; it must be copied into `python_backend`."""
        return self.triton / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"

    @property
    def libraries(self) -> Path:
        """The shared libraries that the server and its stubs bring along."""
        return self.root / "lib" / "python3.11" / "site-packages" / "nvidia_pytriton.libs"

    @property
    def caches(self) -> Path:
        """Triton's cache directory."""
        return self.triton / "caches"
