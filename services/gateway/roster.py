"""Which versions each pool has to do with, as members, and which of them hold.

Knows pools, members and the table that shows them; knows nothing about when a route may take hold.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from conch.v1 import models_pb2
from services.gateway.members import Member
from services.gateway.pool import Pool
from services.gateway.table import Key, Table, keys_of


@dataclass(eq=False)
class Roster:
    """The members of all pools; `make` makes one of a version and a pool."""

    table: Table
    pools: dict[str, Pool]
    make: Callable[[Key, Pool], Member]
    members: dict[tuple[str, Key], Member] = field(default_factory=dict)

    def members_of(self, route: models_pb2.Route) -> list[Member]:
        """Returns the versions of a route and its shadow in the route's pool, made if nobody knew them."""
        pool = self._pool(route.pool)
        return [self._member(pool, key) for key in keys_of(route)]

    def newcomers(self, route: models_pb2.Route) -> list[Member]:
        """Returns the versions of a route that do not hold yet in its pool."""
        return [member for member in self.members_of(route) if not self.is_held(member)]

    def is_held(self, member: Member) -> bool:
        """Returns whether a route that holds names this version in this pool."""
        return self.table.is_held(member.key) and self.table.entries[member.key] is member.entry

    def has_answers(self, model: str) -> bool:
        """Returns whether any version with a share of a model's calls takes some now."""
        held = self.table.route(model)
        numbers = [v.version for v in held.versions if v.weight] if held else []
        entries = [self.table.entries[model, number] for number in numbers]
        return any(entry.served and entry.served.crew.places for entry in entries)

    def dismiss(self, member: Member) -> None:
        """Knows a member no more."""
        self.members.pop((member.pool.name, member.key), None)
        if self.table.entries.get(member.key) is member.entry:
            del self.table.entries[member.key]

    def _member(self, pool: Pool, key: Key) -> Member:
        member = self.members.get((pool.name, key))
        if member is None:
            member = self.members[pool.name, key] = self.make(key, pool)
            if not self.table.is_held(key):
                self.table.entries[key] = member.entry
        return member

    def _pool(self, name: str) -> Pool:
        if name in self.pools or len(self.pools) > 1:
            return self.pools[name]
        return next(iter(self.pools.values()))
