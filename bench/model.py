"""How many hosts one Consul datacenter carries: a model fitted to what fanout and scale measured. Pure.

Everything that a login causes has a part per login and a part per wake-up: alone, a login is one wake-up; under load,
one announcement wakes every host for many logins. Both are measured, which gives the two parts (docs/scale.md).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from bench.results import Results


@dataclass(frozen=True)
class Assumptions:
    """What was not measured here."""

    cores: int = 8
    """Cores of a Consul server, each as fast as this machine's."""
    use: float = 0.5
    """The part of a server's CPU and network that this may take."""
    network: float = 1.25e9
    """Octets a second that a server's network carries: 10 Gbit/s."""
    watches: int = 9_000
    """Watches of the KV store at which one cluster becomes unresponsive, as operators reported (9,000 to 10,000)."""
    watches_per_bridge: int = 4
    """Long polls of a bridge: the identity feed, and those of leading and of publishing."""
    agents: int = 5_000
    """Consul client agents in one datacenter, as HashiCorp's sizing guidelines recommend at most: gossip."""
    bridges: int = 2
    """Writers, each of which announces at its own pace."""
    renewal: float = 30.0
    """Seconds after which a long poll that heard nothing is asked again (`WAIT` in registry/poll.py)."""


class Cost(NamedTuple):
    """What is spent of something each second, by how often hosts wake and how many logins there are."""

    per_wake: float
    per_login: float

    def at(self, wakes: float, logins: float) -> float:
        """At so many wake-ups (of each host) and logins a second."""
        return self.per_wake * wakes + self.per_login * logins

    @classmethod
    def solve(cls, alone: float, busy: float, wakes: float, logins: float) -> Self:
        """The parts, from one login that is one wake-up, and"""
        if logins <= wakes:
            raise ValueError(f"{logins:g} logins and {wakes:g} wake-ups a second: that is not under load")
        per_login = max(0.0, (busy - wakes * alone) / (logins - wakes))
        return cls(max(0.0, alone - per_login), per_login)


class Line(NamedTuple):
    """A value that grows with the number of hosts."""

    base: float
    per_host: float

    def at(self, hosts: float) -> float:
        """The value at so many hosts."""
        return self.base + self.per_host * hosts

    @classmethod
    def through(cls, points: Mapping[str, float]) -> Self:
        """The line nearest to the points (by number of hosts; least squares), which does not fall."""
        hosts = [float(number) for number in points]
        values = list(points.values())
        mean_hosts, mean_value = sum(hosts) / len(hosts), sum(values) / len(values)
        spread = sum((each - mean_hosts) ** 2 for each in hosts)
        if not spread:
            raise ValueError(f"figures for one number of hosts only: {', '.join(points)}")
        together = sum((x - mean_hosts) * (y - mean_value) for x, y in zip(hosts, values, strict=True))
        slope = max(0.0, together / spread)
        return cls(mean_value - slope * mean_hosts, slope)


@dataclass(frozen=True)
class Fit:
    """What was measured, as costs."""

    server: Cost
    """CPU seconds of the leader, however many hosts there are."""
    host: Cost
    """CPU seconds of the server that a host polls."""
    traffic: Cost
    """Octets on the wire of each host."""
    announcements: float
    """How often a second one bridge announces under load: so often its hosts wake at most."""
    heard: Line
    """Milliseconds until the last host has heard (p50)."""
    memory: Line
    """Octets of Consul's memory."""
    idle: float
    """CPU that Consul uses when nothing happens (cores)."""
    herd_peak: float
    """Hosts that come back within the busiest 0.1 s, of each that lost Consul."""


def fit(figures: Mapping[str, Mapping[str, Any]]) -> Fit:
    """Fits `figures`, by bench: those of fanout, scale and herd. Raises ValueError if there are none of one."""
    missing = [name for name in ("fanout", "scale", "herd") if not figures.get(name)]
    if missing:
        raise ValueError(f"no figures of {', '.join(missing)}: run script/bench all")
    fanout, scale, herd = figures["fanout"], figures["scale"], figures["herd"]
    alone = Line.through({hosts: ms / 1000 for hosts, ms in fanout["consul_cpu_ms_per_login"].items()})
    idle = min(fanout["consul_idle_cpu_percent"].values()) / 100
    busy = Line.through({hosts: each / 100 - idle for hosts, each in fanout["busy_consul_cpu_percent"].items()})
    most = max(fanout["busy_logins_per_s"], key=int)
    logins, wakes = fanout["busy_logins_per_s"][most], fanout["busy_wakes_per_s_per_agent"][most]
    octets = scale["bytes_per_login_per_host"]
    return Fit(
        server=Cost.solve(alone.base, busy.base, wakes, logins),
        host=Cost.solve(alone.per_host, busy.per_host, wakes, logins),
        traffic=Cost.solve(octets[max(octets, key=int)], fanout["busy_bytes_per_s_per_agent"][most], wakes, logins),
        announcements=wakes,
        heard=Line.through(fanout["last_agent_p50_ms"]),
        memory=Line.through(fanout["consul_memory_bytes"]),
        idle=idle,
        herd_peak=herd["most_per_100ms"] / herd["followers"],
    )


@dataclass(frozen=True)
class Capacity:
    """What one datacenter carries."""

    logins: float
    """Logins a second in all of the organisation: each is told to every datacenter."""
    wakes: float
    """Wake-ups of each host a second."""
    limits: Mapping[str, float]
    """Hosts that each thing suffices for, by its name."""
    heard: float
    """Milliseconds until the last of those hosts has heard of a login (p50)."""

    @property
    def hosts(self) -> int:
        """Hosts in one datacenter."""
        return max(0, math.floor(min(self.limits.values())))

    @property
    def limit(self) -> str:
        """What sets it."""
        return min(self.limits, key=self.limits.__getitem__)

    def datacenters(self, hosts: int) -> int:
        """How many such datacenters so many hosts need; 0 if none carries any."""
        return -(-hosts // self.hosts) if self.hosts else 0


def capacity(fitted: Fit, servers: int, logins: float, assumed: Assumptions | None = None) -> Capacity:
    """What a datacenter of so many Consul servers carries at so many logins a second."""
    assumed = assumed or Assumptions()
    wakes = min(logins, assumed.bridges * fitted.announcements)
    # An entry stays in its record for some announcements of its bridge; those of others have hosts read it again.
    read = logins * max(1.0, wakes / fitted.announcements)
    cpu = assumed.cores * assumed.use - fitted.server.at(wakes, logins)
    limits = {
        "CPU": _hosts(servers * cpu, fitted.host.at(wakes + 1 / assumed.renewal, read)),
        "network": _hosts(servers * assumed.network * assumed.use, fitted.traffic.at(wakes, read)),
        "watches": float(assumed.watches - assumed.watches_per_bridge * assumed.bridges),
        "gossip": float(assumed.agents),
    }
    return Capacity(logins, wakes, limits, fitted.heard.at(max(0.0, min(limits.values())) / servers))


def _hosts(budget: float, each: float) -> float:
    return max(0.0, budget / each) if each else math.inf


LOGINS = (1, 10, 100, 1000)
SERVERS = (3, 5)
FLEET = 16_000

_BEGIN, _END = "<!-- script/bench model -->", "<!-- end model -->"


def report(results: Results) -> str:
    """The fitted costs, and what follows from them, as Markdown. Raises ValueError if figures are missing."""
    try:
        fitted = fit({name: outcome.figures for name, outcome in results.benches.items()})
        foretold = _check(fitted, results.benches["fanout"].figures["check"])
    except KeyError as missing:
        raise ValueError(f"there is no figure {missing}: run script/bench all") from None
    assumed = Assumptions()
    quick = " with `--quick`, so that they are rough" if results.quick else ""
    lines = [
        f"Fitted to the figures of {results.date}{quick} ({results.machine.get('cpu')}, {results.machine.get('cores')} "
        f"cores, Consul {results.versions.get('consul')}):",
        "",
        "| | per wake-up | per login | from |",
        "|---|---:|---:|---|",
        _row("$S$, leader's CPU, µs", Cost(*(1e6 * part for part in fitted.server)), "fanout"),
        _row("$H$, CPU of its server for each host, µs", Cost(*(1e6 * part for part in fitted.host)), "fanout"),
        _row("$T$, octets on each host's wire", fitted.traffic, "scale, fanout"),
        "",
        f"One bridge announces {fitted.announcements:.1f} times a second under load; a watch takes "
        f"{fitted.memory.per_host / 1024:.0f} KiB of Consul's memory; the last of $n$ hosts at one server hears within "
        f"{fitted.heard.base:.1f} + {fitted.heard.per_host:.3f} $n$ ms; of hosts that lost Consul at once, "
        f"{fitted.herd_peak:.0%} come back within the busiest 0.1 s.",
        "",
        foretold,
        "",
        f"| logins/s | wake-ups/s of a host | Consul servers | CPU | network | watches | gossip | hosts per datacenter "
        f"| last host hears after | datacenters for {FLEET:,} hosts |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for logins in LOGINS:
        for servers in SERVERS:
            found = capacity(fitted, servers, logins, assumed)
            limits = " | ".join(f"{each:,.0f}" for each in found.limits.values())
            lines.append(
                f"| {logins:,} | {found.wakes:.3g} | {servers} | {limits} | **{found.hosts:,}** ({found.limit}) "
                f"| {found.heard:.0f} ms | {found.datacenters(FLEET) or 'none'} |"
            )
    return "\n".join(lines) + "\n"


def _check(fitted: Fit, measured: Mapping[str, float]) -> str:
    """What the model says of figures that it was not fitted to."""
    wakes, logins, hosts = measured["wakes_per_s_per_agent"], measured["logins_per_s"], measured["agents"]
    cpu = fitted.idle + fitted.server.at(wakes, logins) + hosts * fitted.host.at(wakes, logins)
    octets = fitted.traffic.at(wakes, logins)
    return (
        f"The check, {hosts:.0f} hosts and {logins:.0f} logins a second, to which it was not fitted: Consul's CPU "
        f"{cpu:.0%} of a core (measured: {measured['consul_cpu_percent']:.0f}%), each host's wire "
        f"{octets / 1000:.0f} kB/s (measured: {measured['bytes_per_s_per_agent'] / 1000:.0f})."
    )


def _row(name: str, cost: Cost, source: str) -> str:
    return f"| {name} | {_number(cost.per_wake)} | {_number(cost.per_login)} | {source} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def put_into(document: str, text: str) -> str:
    """The document with a report in place of the one before. Raises ValueError if it has no place for it."""
    place = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    changed, count = place.subn(lambda _: f"{_BEGIN}\n{text}{_END}", document, count=1)
    if not count:
        raise ValueError(f"docs/scale.md: there is no {_BEGIN} … {_END}")
    return changed
