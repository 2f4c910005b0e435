"""A version that answers: all that a call needs of it, and its end.

Knows its two ways of answering, in batches or in streams; knows nothing about how it came up.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from conch.v1 import inference_pb2, models_pb2
from services.gateway.batching import Batcher
from services.gateway.crew import Crew
from services.gateway.streams import Streams
from services.tasks import Facts, Task
from services.tasks.encoding import Encoder


@dataclass(frozen=True, eq=False)
class ServedVersion:
    """A version, and in `crew` the servers that proved it. Decoders have `streams`, all others a `batcher`.

    `served_by` is what is common to all servers; the runtime may differ from one to the other.
    """

    version: models_pb2.Version
    task: Task
    facts: Facts
    encoder: Encoder
    served_by: inference_pb2.ServedBy
    crew: Crew
    pool: str = ""
    batcher: Batcher | None = None
    streams: Streams | None = None

    def spread(self, num_servers: int) -> None:
        """Shares calls among `num_servers` from now on."""
        if self.batcher:
            self.batcher.spread(num_servers)
        if self.streams:
            self.streams.spread(num_servers)

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
