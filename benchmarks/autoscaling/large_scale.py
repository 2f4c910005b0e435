"""What grows with the number of gateways, and what bounds it: the tables of docs/scaling.md.

Knows arithmetic over an Estate; knows nothing about simulation. Every row names its formula; S = servers,
P = pools, G = gateways, M = versions routed, K = versions a pool.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks.autoscaling import estate as of
from benchmarks.autoscaling.estate import Estate


@dataclass(frozen=True)
class Row:
    """One figure: what it is, how it comes about, how much it is."""

    what: str
    formula: str
    value: float
    unit: str

    def __str__(self) -> str:
        return f"| {self.what} | `{self.formula}` | {_short(self.value)} {self.unit}".rstrip() + " |"


@dataclass(frozen=True)
class Reach:
    """Up to how many gateways something holds as it is built now."""

    what: str
    budget: str
    gateways: float
    then: str

    def __str__(self) -> str:
        return f"| {self.what} | {self.budget} | {_short(self.gateways)} | {self.then} |"


def rows(e: Estate) -> Iterator[tuple[str, list[Row]]]:
    """Yields the sections with their rows."""
    yield "Channels", _channels(e)
    yield "Proofs and looks", _proofs(e)
    yield "Discovery by DNS", _dns(e)
    yield "Metrics", _metrics(e)
    yield "Routes", _routes(e)
    yield "Ledger", _ledger(e)
    yield "Repository", _repository(e)
    yield "Cluster", _cluster(e)


def reaches(e: Estate) -> list[Reach]:
    """Returns what gives way first, in that order."""
    proof = of.proof_seconds() * e.versions_per_pool
    series = sum(row.value for row in _metrics(e) if row.what == "series of one gateway")
    share = e.gateways / (e.gateways + e.servers)
    found = [
        Reach("proofs", "10 min of a new server's compute", 600 / proof,
              "trust the pod's own proof"),
        Reach("looks", "5 % of a server's core", 0.05 / of.LOOK_CPU_SECONDS * of.LOOK_SECONDS,
              "look at a subset, or watch readiness"),
        Reach("Prometheus", f"{_short(of.PROMETHEUS_SERIES)} series in one", of.PROMETHEUS_SERIES / series,
              "native histograms, shards"),
        Reach("DNS", f"{_short(of.DNS_QUERIES)} queries a second of CoreDNS", of.DNS_QUERIES / _queries(e, 1),
              "a cache on each node, EndpointSlices"),
        Reach("pods of a namespace", f"{_short(of.MAX_PODS_NAMESPACE)}",
              of.MAX_PODS_NAMESPACE * share, "cells"),
        Reach("routes in 1 s", f"{e.api_servers} API servers at 1 Gbit/s",
              of.NETWORK_BYTES * e.api_servers / _event(e), "a relay in each cell"),
        Reach("connections of a server", "1 GiB of its memory", 2**30 / of.CONNECTION_BYTES, "subsets"),
        Reach("pods of a cluster", f"{_short(of.MAX_PODS)}", of.MAX_PODS * share, "clusters"),
    ]  # fmt: skip
    return sorted(found, key=lambda reach: reach.gateways)


def subset_size(e: Estate, *, gateways_per_server: int, least: int = 20) -> int:
    """Returns to how many servers of a pool a gateway should connect.

    So that a server has about `gateways_per_server`, but no fewer servers than `least`, so that losing one
    is not felt. Deterministic subsets (Site Reliability Engineering, chapter 20) keep servers even.
    """
    return min(
        e.servers_per_pool, max(least, math.ceil(gateways_per_server * e.servers_per_pool / e.gateways))
    )


def addresses(response_bytes: int, name: str) -> int:
    """Returns how many A records fit into a response: 12 of header, the question, 16 each (RFC 1035)."""
    question = len(name) + 2 + 4
    opt = 11 if response_bytes == of.EDNS_BYTES else 0
    return (response_bytes - 12 - question - opt) // 16


def print_tables(num_gateways: int) -> None:
    """Prints all tables in Markdown."""
    print(tables(replace(Estate(), gateways=num_gateways)))


def tables(e: Estate) -> str:
    """Returns the tables in Markdown."""
    lines = ["| gives way | budget | gateways | then |", "|---|---|---|---|", *map(str, reaches(e))]
    for title, found in rows(e):
        lines += ["", f"### {title}", "", "| what | formula | number |", "|---|---|---|", *map(str, found)]
    return "\n".join(lines)


def _channels(e: Estate) -> list[Row]:
    subset = subset_size(e, gateways_per_server=20)
    return [
        Row("channels, each to each", "G x S", e.gateways * e.servers, ""),
        Row("memory of a gateway", "S x 28 KiB", e.servers * of.CHANNEL_BYTES / 2**20, "MiB"),
        Row("memory of a server", "G x 15 KiB", e.gateways * of.CONNECTION_BYTES / 2**20, "MiB"),
        Row("subset of a pool", "max(20, 20 x S/P / G)", subset, "servers"),
        Row("channels with subsets", "G x P x subset", e.gateways * e.pools * subset, ""),
        Row("gateways of a server with subsets", "G x subset / (S/P)",
            e.gateways * subset / e.servers_per_pool, ""),
        Row("spread of that, random subsets", "1 / sqrt(mean)",
            1 / math.sqrt(e.gateways * subset / e.servers_per_pool), "(standard deviation / mean)"),
        Row("spread of that, deterministic subsets", "at most one gateway",
            e.servers_per_pool / (e.gateways * subset), "(difference / mean)"),
    ]  # fmt: skip


def _proofs(e: Estate) -> list[Row]:
    each = of.proof_seconds()
    return [
        Row("warming and proof of a version by one gateway", "measured times of all shapes + 32 examples",
            each, "s of a core"),
        Row("of all versions of a new server by all gateways", "G x K x that",
            e.gateways * e.versions_per_pool * each / 3600, "h of a core"),
        Row("of all versions, once", "K x that", e.versions_per_pool * each, "s of a core"),
        Row("looks at a server", "G / 1 s", e.gateways / of.LOOK_SECONDS, "a second"),
        Row("cores of a server that they take", "G x 0.3 ms", e.gateways * of.LOOK_CPU_SECONDS, ""),
    ]  # fmt: skip


def _dns(e: Estate) -> list[Row]:
    name = "conch-triton-cpu.inference.svc.cluster.local"
    return [
        Row("questions", "G x P x 2 families x 4 names (ndots: 5) / 1 s",
            _queries(e, e.gateways), "a second"),
        Row("with a final dot", "G x P x 2 / 1 s", e.gateways * e.pools * 2, "a second"),
        Row("with a cache on each node, TTL 5 s", "nodes x P x 2 / 5 s",
            e.nodes * e.pools * 2 / of.DNS_TTL_SECONDS, "a second"),
        Row("addresses in 512 bytes (UDP)", "(512 - 12 - question) / 16", addresses(of.UDP_BYTES, name), ""),
        Row("addresses in 1,232 bytes (EDNS)", "(1232 - 12 - question - 11) / 16",
            addresses(of.EDNS_BYTES, name), ""),
        Row("addresses in 65,535 bytes (TCP), no more", "(65535 - 12 - question) / 16",
            addresses(of.TCP_BYTES, name), ""),
        Row("answers, all from CoreDNS", "G x P x S/P x 16 bytes / 1 s",
            e.gateways * e.servers * 16 / 1e6, "MB a second"),
    ]  # fmt: skip


def _metrics(e: Estate) -> list[Row]:
    stages = e.versions * e.rpcs_per_model * of.NUM_STAGES * (of.STAGE_BUCKETS + 2)
    batches = e.versions * 2 * (of.BATCH_BUCKETS + 2)
    each = stages + batches + e.versions * 4 + e.pools * 2 * (of.STAGE_BUCKETS + 2)
    native = e.versions * (e.rpcs_per_model * of.NUM_STAGES + 2 + 4) + e.pools * 2
    return [
        Row("series of conch_stage_seconds in one gateway", "M x 5 stages x (16 buckets + 2)", stages, ""),
        Row("series of one gateway", "that + batches, gauges, queue shares", each, ""),
        Row("series", "G x that", e.gateways * each, ""),
        Row("samples", "series / 15 s", e.gateways * each / 15, "a second"),
        Row("memory of Prometheus", "series x 4 KB", e.gateways * each * of.SERIES_BYTES / 1e9, "GB"),
        Row("shards", "series / 10 million", math.ceil(e.gateways * each / of.PROMETHEUS_SERIES), ""),
        Row("series with native histograms", "G x (M x (5 + 2 + 4) + 2 P)", e.gateways * native, ""),
        Row("series with a gateway's 10 models alone", "series x 10 / models",
            e.gateways * each * e.models_per_pool / e.models, ""),
        Row("recorded series that autoscalers read", "P x 5", e.pools * 5, ""),
    ]  # fmt: skip


def _routes(e: Estate) -> list[Row]:
    event = _event(e)
    return [
        Row("watches", "G + nodes (kubelets, for the mounted file)", e.gateways + e.nodes, ""),
        Row("a change, in the API", "models x 248 bytes + 6.5 KB", event / 1e3, "KB"),
        Row("a change, sent", "that x watches", event * (e.gateways + e.nodes) / 1e6, "MB"),
        Row("seconds until the last gateway has it", "that / API servers / 125 MB/s",
            event * (e.gateways + e.nodes) / e.api_servers / of.NETWORK_BYTES, "s"),
        Row("reads of etcd for a change", "API servers (watch caches)", e.api_servers, ""),
        Row("bookmarks", "G / 60 s", e.gateways / of.BOOKMARK_SECONDS, "a second"),
        Row("lists after an API server restarts", "G / API servers", e.gateways / e.api_servers, "at once"),
    ]  # fmt: skip


def _event(e: Estate) -> float:
    return e.models * of.ROUTE_BYTES + of.OBJECT_BYTES


def _ledger(e: Estate) -> list[Row]:
    at_once = e.gateways * of.WRITE_SECONDS / of.LEDGER_SPREAD_SECONDS
    return [
        Row("looks at the ledger's metadata for a release", "G / 2 s of spread",
            e.gateways / of.LEDGER_SPREAD_SECONDS, "a second"),
        Row("gateways that look before the first has written", "G x 20 ms / 2 s", at_once, ""),
        Row("ledgers that these read, at most", "that x 900 KiB", at_once * of.LEDGER_BYTES / 1e6, "MB"),
        Row("spread for ten of them", "G x 20 ms / 10", e.gateways * of.WRITE_SECONDS / 10, "s"),
        Row("changes that a ledger holds", "900 KiB / 250 bytes", of.LEDGER_BYTES / of.LEDGER_LINE_BYTES, ""),
    ]  # fmt: skip


def _repository(e: Estate) -> list[Row]:
    each = e.versions * of.VERSION_BYTES
    requests = e.gateways * e.versions * of.VERSION_FILES
    return [
        Row("read by one gateway at its start", "M x 760 KB", each / 1e6, "MB"),
        Row("read when all gateways roll", "G x that", e.gateways * each / 1e12, "TB"),
        Row("requests for that", "G x M x 4 files", requests, ""),
        Row("time for them under one prefix", "requests / 5,500 a second",
            requests / of.STORE_REQUESTS / 60, "min"),
        Row("with a cache on each node", "nodes x M x 760 KB", e.nodes * each / 1e12, "TB"),
    ]  # fmt: skip


def _cluster(e: Estate) -> list[Row]:
    pods = e.gateways + e.servers
    return [
        Row("pods", "G + S", pods, ""),
        Row("of what a cluster may have", "pods / 150,000", 100 * pods / of.MAX_PODS, "%"),
        Row("namespaces, at 3,000 pods each", "pods / 3,000", math.ceil(pods / of.MAX_PODS_NAMESPACE), ""),
        Row("EndpointSlices of a pool", "S/P / 100", e.servers_per_pool / of.MAX_SLICE_ENDPOINTS, ""),
        Row("EndpointSlices of the gateway", "G / 100", e.gateways / of.MAX_SLICE_ENDPOINTS, ""),
        Row("sent to kube-proxies when one gateway comes or goes", "nodes x 100 endpoints x 0.3 KB",
            e.nodes * of.MAX_SLICE_ENDPOINTS * 300 / 1e6, "MB"),
        Row("cells of 300 gateways", "G / 300", math.ceil(e.gateways / 300), ""),
    ]  # fmt: skip


def _queries(e: Estate, gateways: int) -> float:
    return gateways * e.pools * 2 * 4 / of.RESOLVE_SECONDS


def _short(value: float) -> str:
    """Returns a number as people read it: 3 digits, thousands with commas, millions in words."""
    if value >= 1e6:
        return f"{value / 1e6:,.3g} million" if value < 1e9 else f"{value / 1e9:,.3g} thousand million"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
