"""How busy an engine is, as metrics of Triton's own endpoint.

Runs inside Triton's python stubs and cannot import Conch. Knows names and numbers; computes nothing.
"""

import time
from typing import Any

import triton_python_backend_utils as pb
from engine import Engine, Load

_EVERY_SECONDS = 0.1
_NAMES = {
    "conch_generation_rows_running": "Texts that are being generated",
    "conch_generation_rows_waiting": "Texts that wait for a place",
    "conch_generation_cache_blocks_used": "Blocks of the KV cache in use",
    "conch_generation_cache_blocks": "Blocks of the KV cache",
}


class Gauges:
    """Tells Triton an engine's load; does nothing where metrics are off."""

    def __init__(self, engine: Engine, *, model: str, version: str) -> None:
        self._engine = engine
        self._told: Load | None = None
        self._at = 0.0
        self._metrics: list[Any] = []
        try:
            self._families = [pb.MetricFamily(n, d, pb.MetricFamily.GAUGE) for n, d in _NAMES.items()]
            labels = {"model": model, "version": version}
            self._metrics = [family.Metric(labels=labels) for family in self._families]
        except pb.TritonModelException as error:
            pb.Logger.log_info(f"no metrics of the engine: {error}")

    def update(self) -> None:
        """Tells the load if it changed, a few times a second at most: each gauge is a round trip."""
        if not self._metrics or time.monotonic() - self._at < _EVERY_SECONDS:
            return
        self._at, load = time.monotonic(), self._engine.load()
        if load == self._told:
            return
        for metric, value in zip(
            self._metrics, (load.running, load.waiting, load.used_blocks, load.num_blocks), strict=True
        ):
            metric.set(value)
        self._told = load
