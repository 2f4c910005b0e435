"""Where routes and ledger are kept: in files, or in ConfigMaps of the cluster that the gateway runs in.

Knows the settings that choose; knows nothing about what is kept there.
"""

from dataclasses import dataclass

from services.cluster.client import Cluster, connect
from services.cluster.ledger import LedgerConfigMap
from services.cluster.routes import RoutesConfigMap
from services.errors import NotReady
from services.gateway.keeping import Ledger, RoutesSource
from services.gateway.ledger import LedgerFile
from services.gateway.routes import RoutesFile
from services.gateway.settings import GatewaySettings


@dataclass(frozen=True)
class Places:
    """Both, and the connection to the cluster if there is one."""

    routes: RoutesSource
    ledger: Ledger
    cluster: Cluster | None = None

    @classmethod
    def of(cls, settings: GatewaySettings) -> "Places":
        """Returns the places that the settings name. Raises NotReady if they cannot be reached from here."""
        if not settings.routes_configmap:
            return cls._on_disk(settings)
        cluster = connect(component="gateway", namespace=settings.namespace)
        routes = RoutesConfigMap(cluster, settings.routes_configmap, mounted=settings.resolved_routes())
        if not settings.ledger_configmap:
            return cls(routes, LedgerFile(settings.resolved_ledger()), cluster)
        return cls(routes, LedgerConfigMap(cluster, settings.ledger_configmap), cluster)

    @classmethod
    def _on_disk(cls, settings: GatewaySettings) -> "Places":
        if settings.ledger_configmap:
            raise NotReady(
                "CONCH_LEDGER_CONFIGMAP keeps the changes of a ConfigMap: set CONCH_ROUTES_CONFIGMAP, too",
                reason="NO_ROUTES_CONFIGMAP",
            )
        return cls(RoutesFile(settings.resolved_routes()), LedgerFile(settings.resolved_ledger()))

    async def close(self) -> None:
        """Closes the connection to the cluster."""
        if self.cluster:
            await self.cluster.close()
