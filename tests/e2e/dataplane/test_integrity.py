"""What somebody changes by hand while the agent is at work is put back, and nobody gets in by that."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from agent.dataplane.nft_rules import TABLE
from radius_bridge.policy.expiry import NEVER
from tests.e2e.dataplane.backends import BACKENDS
from tests.e2e.dataplane.host import ALICE, BOB, PORT, SERVER, SERVICE, Host, reach
from tests.lab.keeper import Keeper
from tests.lab.processes import wait_until

pytestmark = pytest.mark.e2e

SET = f"rb4h.{SERVICE.name}"
OURS = f"inet {TABLE}"
MALLORY = "192.0.2.66"
EVERY = 0.5
BY_EVENTS = pytest.mark.parametrize("host", ["nftables", "nft"], indirect=True)

Tamper = Callable[[Host], None]


def _ipset(*commands: str) -> Tamper:
    def tamper(host: Host) -> None:
        for command in commands:
            host.server.run("ipset", *command.split())

    return tamper


def _iptables(*commands: str) -> Tamper:
    def tamper(host: Host) -> None:
        for command in commands:
            host.iptables(*command.split())

    return tamper


def _nft(commands: str) -> Tamper:
    def tamper(host: Host) -> None:
        host.server.run("nft", commands)

    return tamper


def _other_body(host: Host) -> None:
    """A rule does something else and is called as before."""
    chain = "RB-INPUT-1"
    rules = [line for line in host.saved().splitlines() if line.startswith(f"-A {chain} ")]
    number, rule = next((n, line) for n, line in enumerate(rules, 1) if "--comment" in line)
    body = rule.removeprefix(f"-A {chain} ").replace('"', "").split()
    host.iptables("-R", chain, str(number), *body, "-j", "ACCEPT")


def _all(*tampers: Tamper) -> Tamper:
    def tamper(host: Host) -> None:
        for each in tampers:
            each(host)

    return tamper


def _at_once(script: str) -> Tamper:
    def tamper(host: Host) -> None:
        host.server.run("sh", "-c", script.format(set=SET))

    return tamper


FLUSHED = _iptables("-F")
ON_IPTABLES = {
    "jump deleted": ("jump", _iptables("-D INPUT -j RB-INPUT")),
    "jump not the first": ("jump", _iptables("-I INPUT 1 -p icmp -j ACCEPT")),
    "jump doubled": ("jump", _iptables("-A INPUT -j RB-INPUT")),
    "rule changed, its comment kept": ("rules", _other_body),
    "rule inserted": ("rules", _iptables("-I RB-INPUT 1 -j ACCEPT")),
    "chain flushed": ("rules", _iptables("-F RB-INPUT")),
    "iptables -F": ("rules", FLUSHED),
    "chains deleted": ("rules", _all(FLUSHED, _iptables("-X"))),
}
ON_LEGACY = ("jump deleted", "rule changed, its comment kept", "iptables -F")
ON_IPSET = {
    "set flushed": ("members", _ipset(f"flush {SET}")),
    "member added": ("members", _ipset(f"add {SET} {MALLORY} timeout 3600")),
    "member deleted": ("members", _ipset(f"del {SET} {ALICE}")),
    "member without end": ("members", _ipset(f"-exist add {SET} {ALICE} timeout 0")),
    "denied no more": ("members", _ipset(f"del rb4n.rules_deny {BOB}")),
}
# Rules that mention a set keep it: it can only go in the moment after they did.
SETS = {
    "set deleted": ("rules", _at_once("iptables-nft -F && ipset destroy {set}")),
    "set replaced": ("rules", _at_once("iptables-nft -F && ipset destroy {set} && ipset create {set} hash:net")),
}
ON_NFTABLES = {
    "rule inserted": ("rules", _nft(f"insert rule {OURS} input accept")),
    "chain flushed": ("rules", _nft(f"flush chain {OURS} from.{SERVICE.name}")),
    "table deleted": ("rules", _nft(f"delete table {OURS}")),
    "everything flushed": ("set", _nft("flush ruleset")),
    "set flushed": ("members", _nft(f"flush set {OURS} {SET}")),
    "member added": ("members", _nft(f"add element {OURS} {SET} {{ {MALLORY} timeout 1h }}")),
    "member deleted": ("members", _nft(f"delete element {OURS} {SET} {{ {ALICE} }}")),
    "denied no more": ("members", _nft(f"delete element {OURS} rb4h.rules_deny {{ {BOB} }}")),
    "overrides looked up no more": ("rules", _nft(f"flush set {OURS} overridden")),
}
CLOSING = {"set flushed", "member deleted", "jump doubled"}
"""What lets nobody in by itself: then putting it back must not either."""


CASES = [
    pytest.param(backend, name, *case, id=f"{backend}, {name}")
    for backend in BACKENDS
    for name, case in (ON_NFTABLES if backend == "nftables" else ON_IPTABLES).items()
    if backend != "legacy" or name in ON_LEGACY
] + [pytest.param("nft", name, *case, id=f"nft, {name}") for name, case in (ON_IPSET | SETS).items()]


@contextmanager
def _knocking(host: Host, source: str) -> Iterator[list[str]]:
    """Somebody tries to get in all the time; gives what he met."""
    met: list[str] = []
    stop = threading.Event()

    def knock() -> None:
        while not stop.is_set():
            met.append(reach(host.client, source, SERVER))
            stop.wait(0.03)  # nobody accepts: whoever gets in stays in the listener's queue

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        yield met
    finally:
        stop.set()
        thread.join()


def _enforce(host: Host) -> None:
    host.listen()
    host.enforce({ALICE: 600, "10.0.0.0/8": 600}, deny={BOB: NEVER})


@pytest.mark.parametrize(("host", "name", "kind", "tamper"), CASES, indirect=["host"])
def test_what_was_changed_by_hand_is_put_back_and_told(host: Host, name: str, kind: str, tamper: Tamper) -> None:
    _enforce(host)
    with Keeper(host.server, host.dataplane, host.desired, EVERY) as keeper, _knocking(host, BOB) as met:
        wait_until(lambda: bool(met), "bob's first attempt")
        tamper(host)
        wait_until(lambda: keeper.integrity.repairs.by_kind[kind] > 0, f"the repair of: {name}")
        keeper.wait_repaired(0)  # it is noted when it begins
        repaired = keeper.integrity.repairs.status()["repaired"]
        if host.backend == "nftables" or (host.backend == "nft" and kind in ("jump", "rules")):
            assert repaired[0]["by"].startswith(("nft (pid ", "iptables-nft (pid "))
        tries = len(met)
        wait_until(lambda: len(met) > tries + 2, "bob's next attempts")
        assert set(met[tries + 2 :]) == {"refused"}
        if name in CLOSING:
            assert set(met) == {"refused"}
    assert host.differences() == []
    assert reach(host.client, ALICE, SERVER) == "open"


def test_nothing_is_put_back_that_nobody_changed(host: Host) -> None:
    _enforce(host)
    with Keeper(host.server, host.dataplane, host.desired, EVERY) as keeper:
        end = time.monotonic() + 3 * EVERY
        others = 0
        while time.monotonic() < end:
            # Somebody else is at work beside us.
            if host.backend == "nftables":
                host.server.run("nft", f"add table inet mine; add chain inet mine c{others}")
            else:
                host.iptables("-A", "INPUT", "-p", "tcp", "--dport", str(PORT + 1), "-j", "ACCEPT")
            others += 1
        assert keeper.repaired == 0
    assert others > 3


@BY_EVENTS
def test_a_fight_with_another_writer_is_told_and_slows_down(host: Host) -> None:
    _enforce(host)
    if host.backend == "nftables":
        tamper = _nft(f"insert rule {OURS} input tcp dport 9 accept")
    else:
        tamper = _iptables("-I RB-INPUT 1 -p tcp --dport 9 -j ACCEPT")
    with Keeper(host.server, host.dataplane, host.desired, EVERY) as keeper:
        for times in range(5):
            assert keeper.integrity.alarms() == []
            tamper(host)
            keeper.wait_repaired(times)
        (alarm,) = keeper.integrity.alarms()
        assert "rules: somebody keeps changing this" in alarm
        began = time.monotonic()
        tamper(host)
        keeper.wait_repaired(5)
        assert time.monotonic() - began > 1  # it was put back at once before
    assert host.differences() == []
