"""What the bridge counts, for Prometheus. Labels are bound once, where they are used.

Names follow Prometheus' rules: base units, `_total` for what only grows.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; the aims of the project (10 ms, 50 ms) are edges."""

PACKETS = Counter(
    "radius_bridge_packets_total",
    "RADIUS packets by what became of them: answered, repeated (answered from the cache), or dropped",
    ["outcome"],
)
DROPPED = Counter(
    "radius_bridge_dropped_total",
    "RADIUS packets that got no response, by reason (radius.server.Drop)",
    ["reason"],
)
NOT_BOUND = Counter(
    "radius_bridge_not_bound_total",
    "Packets that were acknowledged and changed nothing, by reason (radius.accounting.NotBound)",
    ["reason"],
)
EVENTS = Counter("radius_bridge_events_total", "Accounting events taken, by kind (start, interim, stop)", ["kind"])
REFUSED_ADDRESSES = Counter(
    "radius_bridge_refused_addresses_total", "Addresses in packets that their client may not bind"
)
IGNORED_ATTRIBUTES = Counter(
    "radius_bridge_ignored_attributes_total", "Attributes ignored because their value cannot be of their type"
)
SEND_ERRORS = Counter("radius_bridge_send_errors_total", "Responses that the kernel did not take")
SOCKET_DROPS = Counter("radius_bridge_socket_drops_total", "Packets that the kernel dropped before we read them")
EVICTED = Counter(
    "radius_bridge_evicted_responses_total",
    "Cached responses given up before their time: a repetition of their request is processed again",
)
IN_FLIGHT = Gauge("radius_bridge_requests_in_flight", "Requests that wait for their commit")
RESPONSE_SECONDS = Histogram(
    "radius_bridge_response_seconds", "From an accounting event's arrival to its response", buckets=_FAST
)


COPY_BEHIND = Gauge(
    "radius_bridge_copy_behind_seconds",
    "How long the oldest change has been waiting to be copied to a datacenter (on the bridge that copies)",
    ["datacenter"],
)


class _Exported(Collector):
    """Counters that a module without Prometheus keeps by itself (`collections.Counter`), read when scraped."""

    def __init__(self, source: str, counters: Mapping[str, int]) -> None:
        self._source = source
        self._counters = counters

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(
            f"radius_bridge_{self._source}", f"What the {self._source} did, by kind", labels=["what"]
        )
        for what, count in list(self._counters.items()):
            family.add_metric([what], count)
        return [family]


def export(source: str, counters: Mapping[str, int]) -> None:
    """Shows `counters` as `radius_bridge_<source>_total{what=…}`."""
    REGISTRY.register(_Exported(source, counters))
