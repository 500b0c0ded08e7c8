"""How many hosts one Consul datacenter carries: a model fitted to what fanout and herd measured. Pure.

A login wakes every host that does not pause; it then reads the pages of all bridges, which hold what was announced
lately. So a wake-up costs something by itself, and something by the entries that it brings. docs/scale.md
explains.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from bench.results import Results
from radius_bridge.policy.members import parse_prefix, user_group
from radius_bridge.registry.feed import FRESH, KEPT_BYTES, KEPT_FOR, PAGE_BYTES, Change, Log
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.poll import WAIT


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
    """Writers, each of which has pages of its own."""


def entry_octets() -> int:
    """What a login takes on a bridge's page."""
    keys, log = Keys(), Log(Keys())
    key = keys.group_member(user_group("user12345"), parse_prefix("10.66.129.123"))
    log.extend(log.lines([Change(key, b"1795351740", 0)]), 1_000_000, now=0.0)
    return log.size


def entries(logins: float, wakes: float) -> float:
    """Entries that a wake-up brings from a bridge with so many logins a second, with at most so many wake-ups.

    As `registry.pages` keep them: on the page in use for KEPT_FOR, and if that fills sooner, on full ones while they
    rest: as many as make KEPT_BYTES with it for KEPT_FOR, more for FRESH and until one of them is the next to be used.
    What is new is always there.
    """
    if not logins:
        return 0.0
    fresh = max(1.0, logins / wakes)
    entry = entry_octets()
    page, lately = PAGE_BYTES / entry, KEPT_FOR * logins
    if lately <= page:
        return max(fresh, lately)
    return max(fresh, page / 2 + max(min(lately, KEPT_BYTES / entry - page), FRESH * logins + page / 2))


class Cost(NamedTuple):
    """What a wake-up of one host costs."""

    per_wake: float
    per_entry: float

    def at(self, wakes: float, read: float) -> float:
        """A second with so many wake-ups, each of which brings so many entries."""
        return wakes * (self.per_wake + self.per_entry * read)

    @classmethod
    def through(cls, few: tuple[float, float], many: tuple[float, float]) -> Self:
        """From two measurements, each entries and what a wake-up cost with them; nothing is negative."""
        if many[0] <= few[0]:
            raise ValueError(f"{few[0]:.3g} and {many[0]:.3g} entries in a record: no load was measured")
        per_entry = max(0.0, (many[1] - few[1]) / (many[0] - few[0]))
        return cls(max(0.0, few[1] - per_entry * few[0]), per_entry)


class Leader(NamedTuple):
    """CPU seconds that the leader spends on what is written and told, however many hosts there are."""

    per_wake: float
    per_login: float

    def at(self, wakes: float, logins: float) -> float:
        """A second with so many logins, and so many times that hosts wake."""
        return self.per_wake * wakes + self.per_login * logins

    @classmethod
    def solve(cls, alone: float, busy: float, wakes: float, logins: float) -> Self:
        """From a login by itself, and from a second with many logins and some wakes; nothing is negative."""
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

    leader: Leader
    host: Cost
    """CPU seconds of the server that a host polls."""
    traffic: Cost
    """Octets on the wire of each host."""
    wakes: float
    """How often a second a host wakes under load: it pauses in between, however many bridges announce."""
    heard: Line
    """Milliseconds until the last host has heard (p50)."""
    memory: Line
    """Octets of Consul's memory."""
    idle: float
    """CPU that Consul uses when nothing happens (cores)."""
    herd_peak: float
    """Hosts that come back within the busiest 0.1 s, of each that lost Consul."""


def fit(figures: Mapping[str, Mapping[str, Any]]) -> Fit:
    """Fits `figures`, by bench: those of fanout and herd, with one bridge. Raises ValueError if they do not do."""
    missing = [name for name in ("fanout", "herd") if not figures.get(name)]
    if missing:
        raise ValueError(f"no figures of {', '.join(missing)}: run script/bench all")
    fanout, herd = figures["fanout"], figures["herd"]
    idle = min(fanout["consul_idle_cpu_percent"].values()) / 100
    alone = Line.through({hosts: ms / 1000 for hosts, ms in fanout["consul_cpu_ms_per_login"].items()})
    busy = Line.through({hosts: each / 100 - idle for hosts, each in fanout["busy_consul_cpu_percent"].items()})
    size = max(fanout["logins_per_s"], key=int)
    busy_size = max(fanout["busy_logins_per_s"], key=int)
    logins, wakes = fanout["busy_logins_per_s"][busy_size], fanout["busy_wakes_per_s_per_agent"][busy_size]
    if not 0 < wakes < logins:
        raise ValueError(f"{logins:g} logins and {wakes:g} wake-ups a second: no load was measured")
    few = entries(fanout["logins_per_s"][size], wakes)
    many = entries(logins, wakes)
    octets = fanout["bytes_per_login_per_agent"][size], fanout["busy_bytes_per_s_per_agent"][busy_size] / wakes
    return Fit(
        leader=Leader.solve(alone.base, busy.base, wakes, logins),
        host=Cost.through((few, alone.per_host), (many, busy.per_host / wakes)),
        traffic=Cost.through((few, octets[0]), (many, octets[1])),
        wakes=max(fanout["busy_wakes_per_s_per_agent"].values()),
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
    read: float
    """Entries that each of them brings."""
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
    wakes = min(logins, fitted.wakes)
    read = assumed.bridges * entries(logins / assumed.bridges, wakes)
    cpu = assumed.cores * assumed.use - fitted.leader.at(wakes, logins)
    limits = {
        "CPU": _hosts(servers * cpu, fitted.host.at(wakes, read) + fitted.host.per_wake / WAIT),
        "network": _hosts(servers * assumed.network * assumed.use, fitted.traffic.at(wakes, read)),
        "watches": float(assumed.watches - assumed.watches_per_bridge * assumed.bridges),
        "gossip": float(assumed.agents),
    }
    return Capacity(logins, wakes, read, limits, fitted.heard.at(max(0.0, min(limits.values())) / servers))


def _hosts(budget: float, each: float) -> float:
    if budget <= 0:
        return 0.0
    return budget / each if each else math.inf


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
        "| | |",
        "|---|---:|",
        f"| $S_w$, leader's CPU for a wake-up of all hosts | {1e6 * fitted.leader.per_wake:,.0f} µs |",
        f"| $S_l$, leader's CPU for a login | {1e6 * fitted.leader.per_login:,.0f} µs |",
        f"| $H_w$, its server's CPU for a wake-up of a host | {1e6 * fitted.host.per_wake:,.0f} µs |",
        f"| $H_e$, its server's CPU for an entry that it reads | {1e6 * fitted.host.per_entry:,.2f} µs |",
        f"| $T_w$, octets on a host's wire for a wake-up | {fitted.traffic.per_wake:,.0f} |",
        f"| $T_e$, octets on a host's wire for an entry | {fitted.traffic.per_entry:,.0f} |",
        "",
        f"A host wakes {fitted.wakes:.1f} times a second under load; a watch takes "
        f"{fitted.memory.per_host / 1024:.0f} KiB of Consul's memory; the last of $n$ hosts at one server hears within "
        f"{fitted.heard.base:.1f} + {fitted.heard.per_host:.3f} $n$ ms; of hosts that lost Consul at once, "
        f"{fitted.herd_peak:.0%} come back within the busiest 0.1 s.",
        "",
        foretold,
        "",
        "| logins/s | wake-ups/s of a host | entries in each | Consul servers | CPU | network | watches | gossip "
        f"| hosts per datacenter | last host hears after | datacenters for {FLEET:,} hosts |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for logins in LOGINS:
        for servers in SERVERS:
            found = capacity(fitted, servers, logins, assumed)
            limits = " | ".join(f"{each:,.0f}" for each in found.limits.values())
            lines.append(
                f"| {logins:,} | {found.wakes:.3g} | {found.read:,.0f} | {servers} | {limits} "
                f"| **{found.hosts:,}** ({found.limit}) | {found.heard:.0f} ms | {found.datacenters(FLEET) or 'none'} |"
            )
    return "\n".join(lines) + "\n"


def _check(fitted: Fit, measured: Mapping[str, float]) -> str:
    """What the model says of figures that it was not fitted to."""
    wakes, logins, hosts = measured["wakes_per_s_per_agent"], measured["logins_per_s"], measured["agents"]
    read = entries(logins, wakes)
    cpu = fitted.idle + fitted.leader.at(wakes, logins) + hosts * fitted.host.at(wakes, read)
    octets = fitted.traffic.at(wakes, read)
    return (
        f"The check, {hosts:.0f} hosts and {logins:.0f} logins a second, to which it was not fitted: Consul's CPU "
        f"{cpu:.0%} of a core (measured: {measured['consul_cpu_percent']:.0f}%), each host's wire "
        f"{octets / 1000:.0f} kB/s (measured: {measured['bytes_per_s_per_agent'] / 1000:.0f})."
    )


def put_into(document: str, text: str) -> str:
    """The document with a report in place of the one before. Raises ValueError if it has no place for it."""
    place = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    changed, count = place.subn(lambda _: f"{_BEGIN}\n{text}{_END}", document, count=1)
    if not count:
        raise ValueError(f"docs/scale.md: there is no {_BEGIN} … {_END}")
    return changed
