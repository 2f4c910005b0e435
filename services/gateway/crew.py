"""The servers that proved a version: each call goes to the least busy, and once more to another if refused.

Knows calls and who may take them; knows nothing about how a server came to be among them.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import structlog

from conch.v1 import inference_pb2
from services.errors import BackendUnavailable
from services.gateway.calls import Inferred
from services.gateway.servers import Server
from services.gateway.triton_streams import TritonWriter
from services.tasks.rpcs import Piece, Prompt
from services.tasks.tensors import Array

log = structlog.get_logger(__name__)

_MAX_MOVES = 1
# Other reasons are of texts that somebody worked on, or of our own.
_REFUSED = ("TRITON_LEAVING", "TRITON_UNAVAILABLE")


class NoServer(BackendUnavailable):  # named like the statuses that services.errors has
    """Nobody has the version now: the call was worked on by nobody and may wait for somebody."""

    def __init__(self, message: str, *, pool: str, reason: str = "NO_SERVER") -> None:
        super().__init__(message, reason=reason, retry_seconds=1.0)
        self.pool = pool


@dataclass(eq=False)
class Place:
    """A version at one server that proved it. `taken` are the inputs that it asks for there."""

    server: Server
    served_by: inference_pb2.ServedBy
    taken: Sequence[str]
    outputs: Sequence[str]
    is_doubted: bool = False
    """Whether a call failed here since the proof: used only where nobody else can be."""
    writer: TritonWriter = field(init=False)

    def __post_init__(self) -> None:
        self.writer = TritonWriter(
            self.server.triton, self.served_by.model, self.served_by.version, self.suspect
        )

    def suspect(self) -> None:
        """Takes note of a call that was not answered here."""
        self.is_doubted = True
        self.server.suspicion.set()

    @property
    def burden(self) -> tuple[bool, bool, int]:
        """What speaks against this place for the next call; the least is best."""
        return self.server.is_leaving, self.is_doubted, self.server.num_inflight

    async def infer(self, inputs: Mapping[str, Array], seconds: float | None) -> Inferred:
        """Returns the outputs of one call here. Raises what Triton.infer raises."""
        wanted = {name: inputs[name] for name in self.taken}
        self.server.num_inflight += 1
        try:
            outputs = await self.server.triton.infer(
                self.served_by.model,
                self.served_by.version,
                wanted,
                self.outputs,
                timeout_seconds=seconds,
            )
        except BackendUnavailable:
            self.suspect()
            raise
        finally:
            self.server.num_inflight -= 1
        return Inferred(outputs, self.served_by)


class Crew:
    """Who answers for one version; a batching.Infer and a streams.Writer."""

    def __init__(self, subject: str, *, pool: str = "") -> None:
        self.places: list[Place] = []
        self.on_size: Callable[[int], None] = lambda size: None
        """Told how many servers share the calls, at least 1, whenever that may have changed."""
        self._subject, self._pool = subject, pool
        self._turn = 0
        self._writing: list[TritonWriter] = []

    def join(self, place: Place) -> None:
        """Lets a place take calls, in the stead of another at the same server."""
        self.places = [p for p in self.places if p.server is not place.server] + [place]
        self.recount()

    def leave(self, server: Server) -> None:
        """Sends no more calls to `server`; those under way there go on."""
        self.places = [p for p in self.places if p.server is not server]
        self.recount()

    def recount(self) -> None:
        """Tells how many there are: those that stay, or all if none does."""
        staying = sum(not place.server.is_leaving for place in self.places)
        self.on_size(staying or max(1, len(self.places)))

    async def infer(self, inputs: Mapping[str, Array], seconds: float | None) -> Inferred:
        """Returns the outputs of one call. Raises NoServer, or what Triton.infer raises."""
        began, place, moves = time.monotonic(), self._next(), 0
        while True:
            left = None if seconds is None else seconds - (time.monotonic() - began)
            try:
                return await place.infer(inputs, left)
            except BackendUnavailable as error:
                place, moves = self._other(place, error, moves=moves), moves + 1

    async def write(self, prompt: Prompt, *, deadline: float | None) -> AsyncGenerator[Piece, None]:
        """Yields the pieces of one text; begins anew elsewhere if it is refused before its first piece.

        Raises NoServer, or what TritonWriter.write raises.
        """
        place, moves, has_begun = self._next(), 0, False
        while True:
            try:
                with self._writes_at(place):
                    async with aclosing(place.writer.write(prompt, deadline=deadline)) as pieces:
                        async for piece in pieces:
                            has_begun = True
                            yield piece
                return
            except BackendUnavailable as error:
                if has_begun or error.reason not in _REFUSED:
                    raise
                place, moves = self._other(place, error, moves=moves), moves + 1

    def end(self) -> None:
        """Ends all texts under way, also at servers that left."""
        for writer in self._writing:
            writer.end()

    @contextmanager
    def _writes_at(self, place: Place) -> Iterator[None]:
        place.server.num_inflight += 1
        self._writing.append(place.writer)
        try:
            yield
        finally:
            place.server.num_inflight -= 1
            self._writing.remove(place.writer)

    def _next(self, but: Place | None = None) -> Place:
        places = [p for p in self.places if p.server is not but.server] if but else self.places
        if not places:
            self._nobody()
        self._turn += 1
        start = self._turn % len(places)
        return min(places[start:] + places[:start], key=lambda place: place.burden)

    def _other(self, place: Place, error: BackendUnavailable, *, moves: int) -> Place:
        """Returns who else may take a refused call; if there is nobody, raises what that means."""
        if moves < _MAX_MOVES and any(other.server is not place.server for other in self.places):
            other = self._next(but=place)
            log.info("call.moved", subject=self._subject, server=place.server.address, reason=error.reason)
            return other
        if error.reason == "TRITON_LEAVING":
            self._nobody(error)
        raise error

    def _nobody(self, error: BackendUnavailable | None = None) -> NoReturn:
        where = f" in pool {self._pool}" if self._pool else ""
        message = error.message if error else f"no server{where} has {self._subject} now"
        reason = error.reason if error else "NO_SERVER"
        raise NoServer(message, pool=self._pool, reason=reason) from error
