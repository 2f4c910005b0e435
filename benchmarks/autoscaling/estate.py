"""What a very large installation is made of, and what one of each thing costs.

Knows numbers and where they are from: "measured" on the machine of service_times.json, "read" in our own
code or in a published limit, "assumed" where neither was to be had. Knows nothing about what follows.
"""

from dataclasses import dataclass

from benchmarks.autoscaling.simulation import World
from services.gateway.metrics import STAGES


@dataclass(frozen=True)
class Estate:
    """How much there is of everything."""

    gateways: int = 10_000
    pools: int = 5
    servers_per_pool: int = 1_000
    models: int = 50
    versions_per_model: int = 2
    models_per_pool: int = 10
    rpcs_per_model: int = 1
    nodes: int = 1_000
    api_servers: int = 3

    @property
    def servers(self) -> int:
        """Triton pods."""
        return self.pools * self.servers_per_pool

    @property
    def versions(self) -> int:
        """Versions that are routed."""
        return self.models * self.versions_per_model

    @property
    def versions_per_pool(self) -> int:
        """Versions that a pool's servers hold."""
        return self.models_per_pool * self.versions_per_model


# Measured: resident memory of 500 grpc.aio channels over 500 connections, grpcio 1.85.
CHANNEL_BYTES = 28 * 1024
"""At the gateway."""
CONNECTION_BYTES = 15 * 1024
"""At a server; that of grpc's C++ core, which Triton has too."""
# Measured: the files that a gateway reads of the version in service_times.json.
VERSION_BYTES = 760_000
VERSION_FILES = 4
# Measured: 50 routes of two versions as the ConfigMap holds them.
ROUTE_BYTES = 248
# Read: services/gateway.
LOOK_SECONDS = 1.0
RESOLVE_SECONDS = 1.0
STAGE_BUCKETS = 16
BATCH_BUCKETS = 9
NUM_STAGES = len(STAGES)
LEDGER_BYTES = 900 << 10
LEDGER_SPREAD_SECONDS = 2.0
# Read: Kubernetes' documentation, RFC 1035, RFC 6891 and CoreDNS' defaults.
MAX_NODES = 5_000
MAX_PODS = 150_000
MAX_PODS_NAMESPACE = 3_000
MAX_SLICE_ENDPOINTS = 100
UDP_BYTES = 512
EDNS_BYTES = 1_232
TCP_BYTES = 65_535
DNS_TTL_SECONDS = 5.0
BOOKMARK_SECONDS = 60.0
# Assumed.
LOOK_CPU_SECONDS = 0.0003
OBJECT_BYTES = 6_500
"""Beside the routes: metadata with the newest 20 lines of changes."""
LEDGER_LINE_BYTES = 250
SERIES_BYTES = 4_000
PROMETHEUS_SERIES = 10_000_000
NETWORK_BYTES = 125_000_000
DNS_QUERIES = 50_000
WRITE_SECONDS = 0.02
STORE_REQUESTS = 5_500


def proof_seconds(world: World | None = None) -> float:
    """Returns the compute that one gateway's warming and proof of one version costs a server."""
    return (world or World()).proof_seconds()
