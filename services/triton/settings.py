"""Settings of the embedded Triton: environment variables CONCH_*, read once in `__main__`."""

from pathlib import Path
from typing import Literal

from services.settings import SharedSettings


class TritonSettings(SharedSettings):
    """Where Triton's environment and the staged repository lie, and where it listens."""

    runtime: Literal["onnxruntime", "openvino", "tensorrt"] = "onnxruntime"
    """The runtime of this Triton: which of a model's configurations it reads. There is no tensorrt backend
    here: as tensorrt it serves the models whose plans fit no GPU of this machine. CONCH_RUNTIME."""
    triton_control: Literal["explicit", "none"] = "explicit"
    """explicit: models are loaded when the gateway says so; none: all that is staged, once, as it starts.
    CONCH_TRITON_CONTROL."""
    triton_env: Path | None = None
    """Virtual environment made by `services.triton.install`. Default: `home`/triton. CONCH_TRITON_ENV."""
    staged: Path | None = None
    """The copy of the repository that Triton reads. Default: `home`/staged. CONCH_STAGED."""
    triton_address: str = "127.0.0.1:8001"
    """host:port of gRPC; the host holds for HTTP and metrics too. CONCH_TRITON_ADDRESS."""
    triton_http_port: int = 8000
    """Port of HTTP, 0 = no HTTP. CONCH_TRITON_HTTP_PORT."""
    triton_metrics_port: int = 8002
    """Port of Triton's own metrics, 0 = none; needs HTTP's host. CONCH_TRITON_METRICS_PORT."""
    triton_log_file: Path | None = None
    """Where Triton itself logs. Default: its stderr. CONCH_TRITON_LOG_FILE."""
    triton_exit_timeout_seconds: int = 10
    """How long calls in flight may take after SIGTERM. CONCH_TRITON_EXIT_TIMEOUT_SECONDS."""

    def resolved_env(self) -> Path:
        """Returns Triton's environment as an absolute path."""
        return (self.triton_env or self.resolved_home() / "triton").expanduser().absolute()

    def resolved_staged(self) -> Path:
        """Returns the staged repository as an absolute path, made if it did not exist."""
        folder = (self.staged or self.resolved_home() / "staged").expanduser().absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return folder
