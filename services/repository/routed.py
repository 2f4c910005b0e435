"""Which versions routes name. Knows conch.v1.Routes; reads nothing."""

from conch.v1 import models_pb2

Key = tuple[str, int]
"""Model and version."""


def versions_of(routes: models_pb2.Routes, *, pool: str | None = None) -> list[Key]:
    """Returns the versions that `routes` name, sorted: those of weight 0 and shadows too.

    With `pool` only those of the pool's routes. A route without pool is of whichever pool there is.
    """
    chosen = [route for route in routes.routes if pool is None or route.pool in ("", pool)]
    return sorted({(route.model, number) for route in chosen for number in numbers_of(route)})


def numbers_of(route: models_pb2.Route) -> list[int]:
    """Returns the versions of one route, each once, its shadow included, sorted."""
    return sorted({v.version for v in route.versions} | ({route.shadow} if route.shadow else set()))
