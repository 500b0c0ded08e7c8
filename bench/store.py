"""A registry with many bindings in it, and many logins a second: what a busy site looks like."""

import base64
import http.client
import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from radius_bridge.identity.bindings import Binding, Claim
from radius_bridge.identity.sessions import Session
from radius_bridge.policy.members import parse_prefix, user_group
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.records import encode
from tests.lab.netns import Namespace
from tests.lab.processes import BIN, LabError, Process, wait_until
from tests.lab.site import BRIDGE_PORT, CONSUL, CONSUL_PORT, RADIUS, Site

FIRST = int(IPv4Address("10.100.0.0"))
"""Stored bindings count up from here; no login of a benchmark does."""

_OPS = 64
_WRITERS = 8
_TERM = 3_000_000_000
"""Seconds from 2001 on for which the stored sessions last."""


class Place(Protocol):
    """Where connections are made from: a `Namespace`, or ours."""

    def socket(self) -> socket.socket:
        """A TCP socket there."""


def connection(namespace: Place, address: str = CONSUL, port: int = CONSUL_PORT) -> http.client.HTTPConnection:
    """A connection to Consul out of a namespace; close it after use."""
    made = http.client.HTTPConnection(address, port, timeout=30)
    made.sock = namespace.socket()
    made.sock.settimeout(30)
    # As http.client does when it connects itself: without it, a put's body waits 40 ms for an acknowledgement.
    made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.sock.connect((address, port))
    return made


def fill(namespace: Place, first: int, last: int, address: str = CONSUL, port: int = CONSUL_PORT) -> None:
    """Stores the sessions number `first` … `last` - 1, each of a user of its own, as a bridge would."""
    keys = Keys()

    def ops(number: int) -> list[dict[str, object]]:
        host = parse_prefix(str(IPv4Address(FIRST + number)))
        user = f"stored{number}"
        name = f"203.0.113.2/stored-{number}"
        mac = f"02:00:{number >> 24 & 255:02x}:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
        session = Session(
            user, 1e9, 1e9, 1e9, 1e9, "nas", _TERM, _TERM, mac=mac, addresses=(str(host),), named=(1e9, 0.0)
        )
        record = encode(Binding({name: Claim(user, 1e9, 1e9, session.limit, session.fallback, mac=mac)}))
        member = keys.group_member(user_group(user), host)
        return [
            _set(keys.session(name), encode(session)),
            _set(keys.binding(host), record),
            _set(member, str(int(session.fallback)).encode()),
        ]

    def write(part: int) -> None:
        consul = connection(namespace, address, port)
        per_transaction = _OPS // 3
        for start in range(first + part * per_transaction, last, _WRITERS * per_transaction):
            numbers = range(start, min(start + per_transaction, last))
            consul.request("PUT", "/v1/txn", json.dumps([op for number in numbers for op in ops(number)]))
            answer = consul.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise LabError(f"Consul refused a transaction: {body[:200]!r}")
        consul.close()

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(write, range(_WRITERS)))


def restart_with(site: Site, first: int, last: int) -> None:
    """Stores bindings while bridges and agent are down, as if they had been announced long ago."""
    for part in (site.agent, site.bridge, *site.other_bridges):
        part.terminate()
    fill(site.server, first, last)
    keys, consul = Keys(), connection(site.server)
    consul.request("GET", f"/v1/kv/{quote(keys.groups)}?keys&separator=/")
    answer = consul.getresponse()
    answer.read()
    done = dict.fromkeys((keys.groups, keys.services, keys.sets), int(answer.headers["X-Consul-Index"]))
    for writers in ("bridge", "engineer"):  # else what was written since would be announced now
        consul.request("PUT", f"/v1/kv/{quote(keys.lock(f'published-{writers}'))}", json.dumps(done))
        consul.getresponse().read()
    consul.close()
    site.start()


def settle(site: Site) -> None:
    """Waits until bridge and agent have done what a start brings with it: a second with less than 5% of a core."""

    def is_quiet() -> bool:
        before = cpu_seconds(site.bridge.pid) + cpu_seconds(site.agent.pid)
        time.sleep(1)
        return cpu_seconds(site.bridge.pid) + cpu_seconds(site.agent.pid) - before < 0.05

    wait_until(is_quiet, "bridge and agent to be idle", timeout=60)


def cpu_seconds(pid: int) -> float:
    """Seconds that a process has spent on a processor."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def memory_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def prefix_bytes(namespace: Namespace) -> int:
    """Octets of one answer with all groups: what a host reads that reads the prefix again."""
    consul = connection(namespace)
    consul.request("GET", f"/v1/kv/{Keys().groups.replace('$', '%24')}?recurse")
    size = len(consul.getresponse().read())
    consul.close()
    return size


def background(site: Site, per_s: int) -> Process:
    """Starts `per_s` logins a second of people whom the protected host knows nothing of."""
    return Process(
        "load",
        [BIN / "python", "-m", "bench.load", RADIUS, str(BRIDGE_PORT), str(per_s)],
        log=site.directory / "load.log",
        namespace=site.client.name,
    ).start()


def _set(key: str, value: bytes) -> dict[str, object]:
    return {"KV": {"Verb": "set", "Key": key, "Value": base64.b64encode(value).decode()}}
