"""Settings of what a pod stages and of what is checked before an upgrade: CONCH_*, read once by the verb."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from services.repository.layout import Runtime
from services.settings import SharedSettings


class RoutedSettings(SharedSettings):
    """Whose routes, and where what went wrong is said."""

    routes_file: Path
    """conch.v1.Routes as JSON, such as the mounted ConfigMap. CONCH_ROUTES_FILE."""
    allow_uncertified: frozenset[str] = frozenset()
    """Versions ("sentiment@3") that need no certificate. A JSON list. CONCH_ALLOW_UNCERTIFIED."""
    store_patience_seconds: float = Field(default=120.0, ge=0)
    """How long a store that does not answer is asked again. CONCH_STORE_PATIENCE_SECONDS."""
    termination_log: Path = Path("/dev/termination-log")
    """What Kubernetes shows as the reason of a container's end; written to if it exists.
    CONCH_TERMINATION_LOG."""


class StageSettings(RoutedSettings):
    """What `conch stage` puts where."""

    pool: str
    """Name of the pool that the pod belongs to. CONCH_POOL."""
    staged: Path
    """The folder that Triton reads as its repository; this pod's alone. CONCH_STAGED."""
    runtime: Runtime
    """Runtime that the pod's Triton is started with. CONCH_RUNTIME."""
    compute_capability: str = "auto"
    """Of the pod's GPU, such as 9.0; auto asks nvidia-smi. Only for tensorrt. CONCH_COMPUTE_CAPABILITY."""
    tensorrt_version: str = "auto"
    """TensorRT of the pod's Triton image, such as 10.14.1.48; auto: not known, so no plan is trusted.
    CONCH_TENSORRT_VERSION."""

    pod_name: str = ""
    """The pod, for its events; empty = no events. CONCH_POD_NAME."""
    pod_namespace: str = ""
    """Its namespace. CONCH_POD_NAMESPACE."""
    pod_uid: str = ""
    """Its uid. CONCH_POD_UID."""


class PoolFacts(BaseModel):
    """What is known of a pool before any pod of it runs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    runtime: Runtime = "onnxruntime"
    """Runtime that its servers are started with."""
    compute_capability: str = ""
    """Of its GPUs, where they are all alike; empty = each pod asks its own."""
    tensorrt_version: str = ""
    """TensorRT of its image; empty = not known, so that its pods trust no plan."""
    own_backends: bool = True
    """Whether Conch's own backends were brought along: text2text-generation, text-generation on CPUs."""


class PreflightSettings(RoutedSettings):
    """What `conch preflight` holds against what."""

    pools: dict[str, PoolFacts]
    """Pools by name, JSON: {"cpu": {"runtime": "openvino"}}; the gateway's own will do. A pool of tensorrt
    may also say its compute_capability and tensorrt_version. CONCH_POOLS."""
