"""What the bridge counts, for Prometheus: dicts and lists where each packet counts, the library's own elsewhere.

Names follow Prometheus' rules: base units, `_total` for what only grows.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import accumulate

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; the aims of the project (10 ms, 50 ms) are edges."""


class _Exported(Collector):
    """A counter with one label, kept as a plain mapping: `counts[what] += 1` is a tenth of what a lock costs."""

    def __init__(self, name: str, about: str, label: str, counts: Mapping[str, int]) -> None:
        self._counts = counts
        self._family = (name, about, label)
        REGISTRY.register(self)

    def _new(self) -> CounterMetricFamily:
        name, about, label = self._family
        return CounterMetricFamily(name, about, labels=[label])

    def describe(self) -> Iterable[Metric]:
        return [self._new()]

    def collect(self) -> Iterable[Metric]:
        family = self._new()
        for what, count in list(self._counts.items()):
            family.add_metric([what], count)
        return [family]


def export(source: str, counters: Mapping[str, int]) -> None:
    """Shows `counters` of a module that knows no Prometheus as `radius_bridge_<source>_total{what=…}`."""
    _Exported(f"radius_bridge_{source}", f"What the {source} did, by kind", "what", counters)


class _OfSources(Collector):
    """The counters of several things of one kind: labels say which, and what was counted."""

    def __init__(self, name: str, about: str, label: str, counters: Mapping[str, Mapping[str, int]]) -> None:
        self._family = (name, about, label)
        self._counters = counters
        REGISTRY.register(self)

    def _new(self) -> CounterMetricFamily:
        name, about, label = self._family
        return CounterMetricFamily(name, about, labels=[label, "what"])

    def describe(self) -> Iterable[Metric]:
        return [self._new()]

    def collect(self) -> Iterable[Metric]:
        family = self._new()
        for which, counts in self._counters.items():
            for what, count in list(counts.items()):
                family.add_metric([which, what], count)
        return [family]


def export_leases(counters: Mapping[str, Mapping[str, int]]) -> None:
    """Shows what the sources of leases counted, by name, as `radius_bridge_leases_total{source=…,what=…}`."""
    _OfSources("radius_bridge_leases", "What the sources of DHCP leases did, by kind", "source", counters)


def _counts(name: str, about: str, label: str) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    _Exported(name, about, label, counts)
    return counts


class Durations(Collector):
    """A histogram of seconds, as cheap as a count."""

    def __init__(self, name: str, about: str, edges: tuple[float, ...]) -> None:
        self._name = name
        self._about = about
        self._edges = edges
        self._counts = [0] * (len(edges) + 1)
        self._sum = 0.0
        REGISTRY.register(self)

    def observe(self, seconds: float) -> None:
        """Counts one."""
        self._counts[bisect_left(self._edges, seconds)] += 1
        self._sum += seconds

    def describe(self) -> Iterable[Metric]:
        """The family without its counts."""
        return [HistogramMetricFamily(self._name, self._about)]

    def collect(self) -> Iterable[Metric]:
        """What Prometheus is shown."""
        names = [*map(str, self._edges), "+Inf"]
        family = HistogramMetricFamily(self._name, self._about)
        family.add_metric([], list(zip(names, accumulate(self._counts), strict=True)), self._sum)
        return [family]


PACKETS = _counts(
    "radius_bridge_packets",
    "RADIUS packets by what became of them: answered, repeated (answered from the cache), or dropped",
    "outcome",
)
DROPPED = _counts(
    "radius_bridge_dropped",
    "RADIUS packets that got no response, by reason (radius.service.Drop)",
    "reason",
)
NOT_BOUND = _counts(
    "radius_bridge_not_bound",
    "Packets that were acknowledged and bound no user, by reason (radius.accounting.NotBound)",
    "reason",
)
EVENTS = _counts("radius_bridge_events", "Accounting events taken, by kind (start, interim, stop, restart)", "kind")
CONNECTIONS = _counts(
    "radius_bridge_connections",
    "RadSec connections by what became of them: accepted, refused (before they were a client's), closed (for cause)",
    "outcome",
)
TLS_ENDS = Gauge(
    "radius_bridge_tls_end_timestamp_seconds",
    "When our certificate, or the first of the revocation lists, is over (epoch)",
    ["file"],
)
REFUSED_ADDRESSES = Counter(
    "radius_bridge_refused_addresses_total", "Addresses in packets that their client may not bind"
)
IGNORED_ATTRIBUTES = Counter(
    "radius_bridge_ignored_attributes_total", "Attributes ignored because their value cannot be of their type"
)
GROUPS_LEFT_OUT = Counter(
    "radius_bridge_groups_left_out_total", "Groups of attributes ([[group]]) beyond those that one session may have"
)
ADDRESSES_LEFT_OUT = Counter(
    "radius_bridge_addresses_left_out_total", "Addresses in packets beyond those that one session may have"
)
SEND_ERRORS = Counter("radius_bridge_send_errors_total", "Responses that the kernel did not take")
SOCKET_DROPS = Counter("radius_bridge_socket_drops_total", "Packets that the kernel dropped before we read them")
EVICTED = Counter(
    "radius_bridge_evicted_responses_total",
    "Cached responses given up before their time: a repetition of their request is processed again",
)
IN_FLIGHT = Gauge("radius_bridge_requests_in_flight", "Requests that wait for their commit")
RECORDING = Gauge(
    "radius_bridge_recording", "1 while a write to Consul was committed in the last seconds, and Status-Server answered"
)
RESPONSE_SECONDS = Durations(
    "radius_bridge_response_seconds", "From an accounting event's arrival to its response", _FAST
)


COPY_BEHIND = Gauge(
    "radius_bridge_copy_behind_seconds",
    "How long the oldest change has been waiting to be copied to a datacenter (on the bridge that copies)",
    ["datacenter"],
)
LEASE_SOURCE_WORKS = Gauge(
    "radius_bridge_lease_source_works", "1 while a source of DHCP leases can be read and is believed", ["source"]
)
