"""A version that answers: all that a call needs of it, and its end.

Knows its two ways of answering, in batches or in streams; knows nothing about how it came up.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from conch.v1 import inference_pb2, models_pb2
from services.gateway.batching import Batcher
from services.gateway.streams import Streams
from services.tasks import Facts, Task
from services.tasks.encoding import Encoder


@dataclass(frozen=True, eq=False)
class ServedVersion:
    """A proven version. Decoders have `streams`, all others a `batcher`."""

    version: models_pb2.Version
    task: Task
    facts: Facts
    encoder: Encoder
    served_by: inference_pb2.ServedBy
    batcher: Batcher | None = None
    streams: Streams | None = None

    async def settle(self, limit_seconds: float) -> None:
        """Returns once no stream is under way, after `limit_seconds` at the latest; takes more meanwhile."""
        if self.streams:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.streams.until_idle(), limit_seconds)

    async def close(self) -> None:
        """Takes nothing more. Returns once all batches are answered; streams under way are ended."""
        if self.batcher:
            await self.batcher.close()
        if self.streams:
            self.streams.close()
