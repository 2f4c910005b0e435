"""What routing asks of wherever routes and ledger are kept: files, or ConfigMaps of a cluster.

Knows neither; `places` chooses.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from conch.v1 import models_pb2
from services.routes import Revision


class RoutesSource(Protocol):
    """Where the routes are written down: a file, or a ConfigMap of the cluster."""

    @property
    def problem(self) -> str:
        """Why nobody can say what is written there now, in a sentence; empty if it is known."""

    def looks(self) -> AsyncIterator[bool]:
        """Yields at once, at every change, and about every half second all the same; True = changed."""

    def exists(self) -> bool:
        """Returns whether anybody ever wrote routes."""

    def read(self) -> Revision:
        """Returns what is written there. Raises InvalidRequest that says what is wrong with it."""

    def writing(
        self, change: models_pb2.RouteChange, *, held: models_pb2.Routes
    ) -> AbstractAsyncContextManager[Revision]:
        """Puts one model's route in the place of its old one; may take it back if the block fails.

        `held` stand in for routes that cannot be read. Raises ServiceError, and nothing is written then.
        """


class Ledger(Protocol):
    """The record of what held when."""

    async def start(self) -> None:
        """Begins to write what is noted."""

    async def close(self) -> None:
        """Writes what is left, if it can be."""

    @property
    def num_unwritten(self) -> int:
        """Revisions that were noted and are not written yet."""

    async def note(self, revision: Revision, held: Iterable[models_pb2.Route]) -> None:
        """Takes what a revision changed into the ledger; `held` are those of its routes that hold.

        Noting the same again changes nothing. Raises NotReady where the ledger must be written at once.
        """

    async def newest(self) -> Mapping[str, models_pb2.Route]:
        """Returns what held of each model when the ledger was last written; raises BackendUnavailable."""

    async def entry(self, asked: models_pb2.RouteChange) -> models_pb2.RouteChange:
        """Returns the line of a change that was noted; `asked` itself if it is not written yet."""

    async def page(
        self, *, model: str, size: int, below: int | None
    ) -> tuple[list[models_pb2.RouteChange], int | None]:
        """Returns up to `size` changes below a sequence, newest first, and the next page's `below`."""
