"""When a new route may take hold on a pool: once enough servers proved what is new in it.

Knows members and how many servers are enough; changes nothing.
"""

import asyncio
from collections.abc import Sequence

from conch.v1 import models_pb2
from services.errors import BackendUnavailable, NotReady, ServiceError
from services.gateway.bell import Bell
from services.gateway.roster import Roster

_PROOF_SECONDS = 60.0
_STAGED_SECONDS = 3.0
_LOOK_SECONDS = 0.2


async def until_decided(roster: Roster, routes: Sequence[models_pb2.Route], bell: Bell) -> None:
    """Returns when all may hold or some will not: proofs may take their time, staging may not."""
    loop = asyncio.get_running_loop()
    end, staged = loop.time() + _PROOF_SECONDS, loop.time() + _STAGED_SECONDS
    while (now := loop.time()) < end:
        lacking = [route for route in routes if shortfalls(roster, route)]
        newcomers = [member for route in lacking for member in roster.newcomers(route)]
        if not lacking or any(member.failure for member in newcomers):
            return
        if now >= staged and not any(member.is_coming for member in newcomers):
            return
        await bell.wait(_LOOK_SECONDS)


def lack(roster: Roster, route: models_pb2.Route, *, is_final: bool) -> ServiceError | None:
    """Returns why a route may not take hold, None if it may. `is_final`: nobody will ask again."""
    missing = shortfalls(roster, route)
    if not missing:
        return None
    newcomers = roster.newcomers(route)
    if failure := next((member.failure for member in newcomers if member.failure), None):
        return failure
    unstaged = [m for m in newcomers if m.candidate and not m.candidate.standings and m.pool.num_ready]
    if is_final and unstaged:
        (model, number), where = unstaged[0].key, unstaged[0].where
        return NotReady(
            f"version {number} of {model} is not staged in {where}: add it to the release's values",
            reason="NOT_STAGED",
        )
    return BackendUnavailable("; ".join(missing), reason="NOT_UP_YET", retry_seconds=1.0)


def shortfalls(roster: Roster, route: models_pb2.Route) -> list[str]:
    """Returns what of a route is not up yet, as in "sentiment@4: on 0 of 2 servers of pool cpu"."""
    is_first = not roster.has_answers(route.model)
    found = [member.shortfall(is_first=is_first) for member in roster.newcomers(route)]
    return [shortfall for shortfall in found if shortfall]
