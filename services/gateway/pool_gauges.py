"""Shows pools to Prometheus: what waits, who serves, who is kept out, where a twin stands in for a plan.

Knows where each number is found; knows nothing about what makes it change.
"""

from services.gateway.holding import Holding
from services.gateway.members import Member
from services.gateway.pool import Pool
from services.gateway.pool_metrics import PoolMetrics
from services.gateway.roster import Roster


class PoolGauges:
    """The gauges of all pools of a gateway."""

    def __init__(self, metrics: PoolMetrics, roster: Roster, holding: Holding) -> None:
        self._metrics, self._roster, self._holding = metrics, roster, holding
        self._fallbacks: set[tuple[str, str]] = set()
        for pool in roster.pools.values():
            self._watch(pool)

    def show(self) -> None:
        """Shows who is kept out and where a twin stands in, as it is now."""
        fallbacks: dict[tuple[str, str], bool] = {}
        for (pool, (model, version)), member in self._roster.members.items():
            kept_out = member.candidate.num_refused if member.candidate else 0
            self._metrics.kept_out.labels(pool, model, str(version)).set(kept_out)
            if member.pool.runtime == "tensorrt":
                fallbacks[pool, model] = fallbacks.get((pool, model), False) or member.falls_back
        for place in self._fallbacks - fallbacks.keys():
            self._metrics.fallback.remove(*place)
        for place, falls_back in fallbacks.items():
            self._metrics.fallback.labels(*place).set(falls_back)
        self._fallbacks = set(fallbacks)

    def _watch(self, pool: Pool) -> None:
        def members() -> list[Member]:
            return [member for member in list(self._roster.members.values()) if member.pool is pool]

        def tokens() -> int:
            return self._holding.num_tokens[pool.name] + sum(member.num_tokens for member in members())

        def streams() -> int:
            return sum(member.num_streams for member in members())

        def held_calls() -> int:
            return self._holding.num_calls[pool.name]

        self._metrics.watch(
            pool.name, tokens=tokens, streams=streams, held_calls=held_calls, states=pool.states
        )
