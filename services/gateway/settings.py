"""The gateway's settings: environment variables CONCH_*, read once in `__main__`.

Knows every limit of the gateway and why its default is what it is; knows nothing of how they are kept.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from services.settings import SharedSettings

RuntimeName = Literal["onnxruntime", "openvino", "tensorrt", "vllm"]


class PoolSettings(BaseModel):
    """A pool of Triton servers that hold the same versions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(pattern=r"^(file:///.+|[^,\s]+:\d+(\s*,\s*[^,\s]+:\d+)*)$")
    """host:port of Triton's gRPC; a name with several addresses, such as that of a headless Service, means
    as many servers, which come and go. Several may stand with commas between; file:///PATH is a file with
    one a line, read anew about every second, where there is no DNS."""
    runtime: RuntimeName = "onnxruntime"
    """Runtime that its servers were started with."""


class GatewaySettings(SharedSettings):
    """What the gateway listens on, talks to and allows; the defaults suit one machine."""

    gateway_address: str = "127.0.0.1:50051"
    """Where callers reach us, host:port; port 0 = any free one. CONCH_GATEWAY_ADDRESS."""
    triton_address: str = "127.0.0.1:8001"
    """Triton's gRPC endpoint. CONCH_TRITON_ADDRESS."""
    metrics_address: str = "127.0.0.1:9090"
    """Where Prometheus reads /metrics. CONCH_METRICS_ADDRESS."""
    runtime: RuntimeName = "onnxruntime"
    """Runtime that this gateway's Triton was started with; versions must be certified for it.
    CONCH_RUNTIME."""

    routes_file: Path | None = None
    """Which versions answer. Default: `home`/routes.json. CONCH_ROUTES_FILE."""
    ledger_file: Path | None = None
    """Which version was routed when. Default: `home`/ledger.jsonl. CONCH_LEDGER_FILE."""
    staged: Path | None = None
    """The copy of the repository that Triton reads. Default: `home`/staged. CONCH_STAGED."""
    allow_uncertified: frozenset[str] = frozenset()
    """Versions ("sentiment@3") that may serve without a certificate; recorded, and shown in answers.
    A JSON list. CONCH_ALLOW_UNCERTIFIED."""

    pools: dict[str, PoolSettings] = Field(default_factory=dict)
    """Pools of Triton by name, JSON: {"cpu": {"address": "triton-cpu:8001", "runtime": "openvino"}}.
    Empty: one pool without name, of the one server at `triton_address`. CONCH_POOLS."""
    staged_by: Literal["gateway", "pool"] = "gateway"
    """Who brings versions to Triton: the gateway, which shares a disk with it, or the pool's own pods as they
    start (`conch stage`). CONCH_STAGED_BY."""
    pool_hold_seconds: float = Field(default=120.0, ge=0)
    """How long, within its deadline, a call waits for a pool that has no server yet.
    CONCH_POOL_HOLD_SECONDS."""

    routes_configmap: str = ""
    """ConfigMap whose key routes.json holds the routes; watched, and written by SetRoute. Empty: the routes
    file. CONCH_ROUTES_CONFIGMAP."""
    ledger_configmap: str = ""
    """ConfigMap that keeps the ledger of all gateways. Empty: the ledger file. CONCH_LEDGER_CONFIGMAP."""
    namespace: str = ""
    """Kubernetes namespace of both; empty = the one that the gateway runs in. CONCH_NAMESPACE."""

    routes_readonly: bool = False
    """True where the cluster owns the routes: SetRoute is refused. CONCH_ROUTES_READONLY."""
    warm_seconds: float = Field(default=20.0, ge=0)
    """Longest time spent on sending a new version every shape once. CONCH_WARM_SECONDS."""

    max_texts: int = Field(default=256, ge=1)
    """Texts in one request. CONCH_MAX_TEXTS."""
    max_text_bytes: int = Field(default=1 << 20, ge=1)
    """UTF-8 bytes of one text; reading more costs seconds and no model reads so far. CONCH_MAX_TEXT_BYTES."""
    max_windows: int = Field(default=4096, ge=1)
    """Windows in which the texts of one request are read: long texts have many, and so have pairs of each
    of many questions with a long context. CONCH_MAX_WINDOWS."""
    max_message_bytes: int = Field(default=64 << 20, ge=1 << 20)
    """Bytes of one gRPC message. Far above `max_text_bytes`, so that a text that is too long is answered
    with a sentence about that text and not by the transport. CONCH_MAX_MESSAGE_BYTES."""
    thread_tokenize_characters: int = Field(default=16384, ge=0)
    """Requests with more text than this are tokenized in a thread (16,384 characters hold the event loop
    for some 4 ms); smaller ones on the loop, where a thread would cost more than it frees.
    CONCH_THREAD_TOKENIZE_CHARACTERS."""

    default_deadline_seconds: float = Field(default=30.0, gt=0)
    """Deadline of calls that bring none. CONCH_DEFAULT_DEADLINE_SECONDS."""
    deadline_reserve_seconds: float = Field(default=0.005, ge=0)
    """Held back from a caller's deadline for decoding and the way home. CONCH_DEADLINE_RESERVE_SECONDS."""

    stream_deadline_seconds: float = Field(default=300.0, gt=0)
    """Deadline of streams (Generate, Chat) that bring none. CONCH_STREAM_DEADLINE_SECONDS."""
    max_streams: int = Field(default=32, ge=1)
    """Streams under way at once per version. A generation engine writes as many texts at a time as it has
    rows and lets the others wait, so this is best some times its rows. CONCH_MAX_STREAMS."""
    queue_streams: int = Field(default=128, ge=0)
    """Streams that may wait here per version before callers get RESOURCE_EXHAUSTED. CONCH_QUEUE_STREAMS."""
    stream_drain_seconds: float = Field(default=60.0, ge=0)
    """How long streams of a version that is no longer routed may go on before it is unloaded; those left
    over then end with UNAVAILABLE. CONCH_STREAM_DRAIN_SECONDS."""

    token_budget: int = Field(default=1024, ge=1)
    """Padded tokens (rows x length) in one call to Triton; more gains no throughput on CPUs and makes
    everybody wait longer. GPUs want more. CONCH_TOKEN_BUDGET."""
    max_rows: int = Field(default=64, ge=1)
    """Texts in one call to Triton. CONCH_MAX_ROWS."""
    max_inflight: int = Field(default=1, ge=1)
    """Calls to Triton at once per version. CONCH_MAX_INFLIGHT."""
    call_tokens: int = Field(default=64, ge=0)
    """What a call to Triton costs beside its tokens, expressed in tokens: a text joins a batch only if it
    adds less padding than this, else a later batch of its own length is cheaper. CONCH_CALL_TOKENS."""
    queue_tokens: int = Field(default=65536, ge=1)
    """Tokens that may wait per version before callers get RESOURCE_EXHAUSTED. CONCH_QUEUE_TOKENS."""
    drain_delay_seconds: float = Field(default=0.0, ge=0)
    """Between turning health off and closing the door, for load balancers that look only now and then.
    CONCH_DRAIN_DELAY_SECONDS."""
    drain_seconds: float = Field(default=10.0, ge=0)
    """How long running calls may take to end after SIGTERM. CONCH_DRAIN_SECONDS."""

    def resolved_routes(self) -> Path:
        """Returns the path of the routes file."""
        return self.routes_file or self.resolved_home() / "routes.json"

    def resolved_ledger(self) -> Path:
        """Returns the path of the ledger."""
        return self.ledger_file or self.resolved_home() / "ledger.jsonl"

    def resolved_staged(self) -> Path:
        """Returns the folder that Triton reads."""
        return self.staged or self.resolved_home() / "staged"
