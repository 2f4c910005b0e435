"""What serving is, whoever brings versions to Triton; and which of the two ways the settings ask for.

Knows what routing and answering need; how versions come to serve is `local_serving`'s and `pool_serving`'s.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Protocol

from grpc_health.v1 import health as health_v1

from conch.v1 import models_pb2
from services.errors import ServiceError
from services.gateway.crew import NoServer
from services.gateway.local_serving import LocalServing
from services.gateway.metrics import Metrics
from services.gateway.pool_serving import PoolServing
from services.gateway.served import ServedVersion
from services.gateway.settings import GatewaySettings
from services.gateway.table import Key, State

__all__ = ["ServedVersion", "Serving", "serving"]


class Serving(Protocol):
    """Which versions answer here, and how they come to."""

    async def start(self) -> None:
        """Watches servers from now on."""

    async def close(self) -> None:
        """Watches no more and drains. Triton keeps what it holds."""

    async def prepare(
        self, routes: Sequence[models_pb2.Route], *, wait: bool = True
    ) -> dict[str, ServiceError]:
        """Brings the versions of `routes` up beside those that serve; returns the failures by model.

        Nothing is shifted. `wait`: somebody waits for the outcome; else what takes long is a failure that
        is retryable, goes on in the background, and `has_moved` tells when to ask again.
        """

    async def shift(self, routes: Iterable[models_pb2.Route], *, drop: Iterable[str] = ()) -> None:
        """Sends calls along `routes` from now on, and none to the models in `drop`.

        A version that was not prepared is LOADING and comes up in the background.
        """

    def has_moved(self) -> bool:
        """Returns whether a failure of `prepare` may be none any more, since this was last asked."""

    def pick(self, model: str, version: int) -> ServedVersion:
        """Returns who answers a call; `version` 0 = the route's weights decide.

        Raises NotFound with the known names, BackendUnavailable while nobody can answer, NoServer if
        somebody soon may.
        """

    async def pick_later(
        self, lack: NoServer, model: str, version: int, *, num_tokens: int, deadline: float
    ) -> ServedVersion:
        """Returns who answers a call that nobody could take, as soon as there is somebody.

        Raises `lack` if that is not worth waiting for, DeadlineExceeded, Overloaded, and what `pick` raises.
        """

    def shadow(self, model: str, answered: int) -> ServedVersion | None:
        """Returns who gets a copy of a call that version `answered` has a share of, None if nobody."""

    def route(self, model: str) -> models_pb2.Route | None:
        """Returns the route that holds, None if the model is not routed."""

    def routes(self) -> models_pb2.Routes:
        """Returns all routes that hold, by model."""

    def state(self, key: Key) -> tuple[State, str]:
        """Returns a version's state and, if it failed, why."""

    def settled(self) -> bool:
        """Returns whether every version with a share answers, failed, or cannot come yet."""

    async def moved(self) -> None:
        """Returns when a version's state may have changed, after some time at the latest."""


def serving(
    settings: GatewaySettings,
    *,
    health: health_v1.aio.HealthServicer,
    metrics: Metrics,
    chance: random.Random | None = None,
    grace_seconds: float = 2.0,
) -> Serving:
    """Returns what serves as the settings say.

    `grace_seconds` pass between a route's shift and the end of what it left behind. In that time calls
    that were given the old version still reach it, and a roll-back finds it loaded.
    """
    kind = PoolServing if settings.staged_by == "pool" else LocalServing
    return kind(settings, health=health, metrics=metrics, chance=chance, grace_seconds=grace_seconds)
