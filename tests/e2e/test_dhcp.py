"""Leases of real DHCP servers, given to real clients: what Kea, dnsmasq and ISC dhcpd write, tell, and how they end."""

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from radius_bridge.leases.dnsmasq import DnsmasqFile
from radius_bridge.leases.keafile import KeaFile
from radius_bridge.leases.keasocket import KeaSocket
from radius_bridge.leases.push import Push
from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius.clients import Networks
from tests.lab.dhcp import NETWORKS, Wire, wire
from tests.leases.recorder import Recorder, running
from tests.waiting import until

pytestmark = pytest.mark.e2e

WITHIN = Networks(map(parse_prefix, NETWORKS))
OTHER = "02:00:00:00:00:77"
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Wire]:
    with wire(tmp_path) as made:
        yield made


async def test_kea_gives_renews_and_takes_back_a_lease(net: Wire) -> None:
    net.kea()
    recorder = Recorder()
    source = KeaFile("dhcp", WITHIN, recorder.submit, net.folder / "kea-leases4.csv")
    async with running(source):
        mac = net.mac
        address = await asyncio.to_thread(net.ask)
        await until(lambda: recorder.now.get(address) == (mac, True), "the lease")
        lease = recorder.last(address)
        assert lease.expires - lease.at == 600
        assert abs(lease.at - time.time()) < 5
        await until(lambda: time.time() > lease.at + 1.1, "a second that makes a difference")
        await asyncio.to_thread(net.ask)
        await until(lambda: recorder.last(address).expires > lease.expires, "the renewal")
        await asyncio.to_thread(net.release)
        await until(lambda: recorder.now[address] == (mac, False), "its end")
        assert not source.problem


async def test_an_address_that_is_declined_is_nobodys(net: Wire) -> None:
    net.kea()
    recorder = Recorder()
    async with running(KeaFile("dhcp", WITHIN, recorder.submit, net.folder / "kea-leases4.csv")):
        address = await asyncio.to_thread(net.ask)
        await until(lambda: recorder.now.get(address) == (net.mac, True), "the lease")
        await asyncio.to_thread(net.decline, address)
        await until(lambda: recorder.now[address] == ("", False), "its end: Kea does not say any more whose it was")


async def test_another_station_on_the_address_is_told(net: Wire) -> None:
    net.kea()
    recorder = Recorder()
    async with running(KeaFile("dhcp", WITHIN, recorder.submit, net.folder / "kea-leases4.csv")):
        address = await asyncio.to_thread(net.ask)
        await asyncio.to_thread(net.release)
        net.become(OTHER)
        assert await asyncio.to_thread(net.ask) == address
        await until(lambda: recorder.now.get(address) == (OTHER, True), "the other station's lease")


async def test_kea_cleans_up_its_file_and_nothing_is_lost_or_told_twice(net: Wire) -> None:
    net.kea(database={"lfc-interval": 1})
    recorder = Recorder()
    source = KeaFile("dhcp", WITHIN, recorder.submit, net.folder / "kea-leases4.csv")
    async with running(source):
        address = await asyncio.to_thread(net.ask)
        await until(lambda: source.counters["rotations"] >= 2, "two clean-ups")
        assert recorder.now == {address: (net.mac, True)}
        if source.counters["loads"] == 1:  # a machine that was too busy to look every second reads all of it again
            assert len(recorder.leases) == 1
        await asyncio.to_thread(net.release)
        await until(lambda: recorder.now[address] == (net.mac, False), "the end, in whichever file it is")
    again = Recorder()
    late = KeaFile("dhcp", WITHIN, again.submit, net.folder / "kea-leases4.csv")
    async with running(late):
        await until(lambda: late.counters["loads"], "a bridge that starts now")
        assert not any(lives for _, lives in again.now.values())


async def test_a_bridge_that_starts_late_reads_what_kea_has_cleaned_up(net: Wire) -> None:
    net.kea(database={"lfc-interval": 1})
    address = await asyncio.to_thread(net.ask)
    await until(lambda: "192.0.2" not in (net.folder / "kea-leases4.csv").read_text(), "a clean-up")
    recorder = Recorder()
    async with running(KeaFile("dhcp", WITHIN, recorder.submit, net.folder / "kea-leases4.csv")):
        await until(lambda: recorder.now == {address: (net.mac, True)}, "the lease")


async def test_kea_gives_and_takes_back_an_ipv6_address_and_a_delegated_prefix(net: Wire) -> None:
    net.kea(6)
    recorder = Recorder()
    async with running(KeaFile("dhcp", WITHIN, recorder.submit, net.folder / "kea-leases6.csv")):
        await asyncio.to_thread(net.ask6)
        await until(lambda: len(recorder.now) == 2, "an address and a prefix")
        assert sorted(parse_prefix(each).length for each in recorder.now) == [56, 128]
        assert set(recorder.now.values()) == {(net.mac, True)}
        await asyncio.to_thread(net.release6)
        await until(lambda: set(recorder.now.values()) == {(net.mac, False)}, "the end of both")


async def test_keas_control_socket_says_which_file_to_follow(net: Wire) -> None:
    net.kea()
    recorder = Recorder()
    source = KeaSocket("dhcp", WITHIN, recorder.submit, net.folder / "kea4.sock")
    async with running(source):
        address = await asyncio.to_thread(net.ask)
        await until(lambda: recorder.now == {address: (net.mac, True)}, "the lease")
        assert source.counters["rows"] > 0


@pytest.mark.parametrize("version", [4, 6])
async def test_leases_that_are_in_no_file_are_seen_through_the_control_socket(net: Wire, version: int) -> None:
    net.kea(version, database={"persist": False})
    recorder = Recorder()
    source = KeaSocket("dhcp", WITHIN, recorder.submit, net.folder / f"kea{version}.sock")
    await asyncio.to_thread(net.ask if version == 4 else net.ask6)
    await source.look()
    source.every = 0.1
    async with running(source):
        await until(lambda: recorder.now, "the lease")
        assert set(recorder.now.values()) == {(net.mac, True)}
        await asyncio.to_thread(net.release if version == 4 else net.release6)
        source.every = 0.1
        await until(lambda: set(recorder.now.values()) == {(net.mac, False)}, "its end", within=15)


async def test_dnsmasq_gives_renews_and_takes_back_leases(net: Wire) -> None:
    net.dnsmasq()
    recorder = Recorder()
    source = DnsmasqFile("dhcp", WITHIN, recorder.submit, net.folder / "dnsmasq.leases")
    source.every = 0.1
    async with running(source):
        address = await asyncio.to_thread(net.ask)
        await until(lambda: recorder.now == {address: (net.mac, True)}, "the lease")
        first = recorder.last(address)
        assert abs(first.expires - time.time() - 600) < 5
        await asyncio.to_thread(net.ask6)
        await until(lambda: len(recorder.now) == 2, "the IPv6 lease")
        assert set(recorder.now.values()) == {(net.mac, True)}
        await until(lambda: time.time() > first.at + 1.1, "a second that makes a difference")
        await asyncio.to_thread(net.ask)
        await until(lambda: recorder.last(address).expires > first.expires, "the renewal")
        await asyncio.to_thread(net.release)
        await until(lambda: recorder.now[address] == (net.mac, False), "the end")
        await asyncio.to_thread(net.release6)
        await until(lambda: set(recorder.now.values()) == {(net.mac, False)}, "the end of the other")
        assert not source.problem


class PushOnTheServer(Push):
    """An endpoint on the DHCP server's host, which is where its hooks run."""

    def __init__(self, net: Wire, recorder: Recorder, port: int = 0) -> None:
        here = Networks([parse_prefix("127.0.0.0/8")])
        listen = ("127.0.0.1", port)
        super().__init__("hooks", WITHIN, recorder.submit, listen=listen, token=TOKEN.encode(), allowed=here)
        self._net = net

    def bind(self) -> socket.socket:
        return self._net.server.call(super().bind)


@pytest.mark.parametrize("server", ["kea", "kea6", "dnsmasq", "dhcpd"])
async def test_the_hooks_tell_the_bridge_of_leases_and_of_their_ends(net: Wire, server: str) -> None:
    recorder = Recorder()
    source = PushOnTheServer(net, recorder)
    async with running(source):
        port = await source.port
        hooks = net.hooks(f"http://127.0.0.1:{port}/lease", TOKEN)
        match server:
            case "kea":
                net.kea(hooks=str(hooks / "kea-run-script"))
            case "kea6":
                net.kea(6, hooks=str(hooks / "kea-run-script"))
            case "dnsmasq":
                net.dnsmasq(f"--dhcp-script={hooks / 'dnsmasq-dhcp-script'}", "--script-on-renewal")
            case "dhcpd":
                net.dhcpd(hooks / "dhcpd.conf")
        mac, six = net.mac, server == "kea6"
        await asyncio.to_thread(net.ask6 if six else net.ask)
        await until(lambda: len(recorder.now) == 1 + six, "the lease")
        assert set(recorder.now.values()) == {(mac, True)}
        assert {round(each.expires - each.at, -1) for each in recorder.leases} == {600}
        await asyncio.to_thread(net.release6 if six else net.release)
        await until(lambda: set(recorder.now.values()) == {(mac, False)}, "its end")
        await until(lambda: not list((hooks / "spool").glob("*.json")), "the spool to be empty")


async def test_a_hook_keeps_what_it_could_not_tell_and_tells_it_in_order(net: Wire) -> None:
    recorder = Recorder()
    first = PushOnTheServer(net, recorder)
    async with running(first):
        port = await first.port
    hooks = net.hooks(f"http://127.0.0.1:{port}/lease", TOKEN)
    tell = hooks / "radius-bridge-lease"
    for lifetime in ("600", "0", "700"):
        began = time.monotonic()
        assert net.server.run(tell, "192.0.2.5", lifetime, "0:1b:2c:3d:4e:5").returncode == 0
        assert time.monotonic() - began < 5  # it waits for nobody
    assert len(list((hooks / "spool").glob("*.json"))) == 3
    second = PushOnTheServer(net, recorder, port)
    async with running(second):
        await until(lambda: len(recorder.leases) == 3, "what was spooled", within=20)
        assert [round(each.expires - each.at) for each in recorder.leases] == [600, 0, 700]
        assert recorder.now == {"192.0.2.5": ("00:1b:2c:3d:4e:05", True)}


async def test_a_hook_gives_up_only_what_the_bridge_refuses_for_good(net: Wire) -> None:
    recorder = Recorder()
    source = PushOnTheServer(net, recorder)
    async with running(source):
        hooks = net.hooks(f"http://127.0.0.1:{await source.port}/lease", TOKEN)
        spool = hooks / "spool"
        await asyncio.to_thread(net.server.run, hooks / "radius-bridge-lease", "198.51.100.1", "600")
        await until(lambda: source.counters["outside_networks"] == 1, "the refusal")
        await until(lambda: not list(spool.glob("*.json")), "it to be given up")
        (hooks / "token").write_text("not the token, alas\n")
        await asyncio.to_thread(net.server.run, hooks / "radius-bridge-lease", "192.0.2.7", "600")
        await until(lambda: source.counters["bad_token"], "the refusal")
        assert len(list(spool.glob("*.json"))) == 1
        (hooks / "token").write_text(TOKEN)
        await until(lambda: recorder.now == {"192.0.2.7": ("", True)}, "what is right now")


async def test_the_token_is_in_no_argument_of_a_process(net: Wire) -> None:
    recorder = Recorder()
    recorder.gate.clear()
    source = PushOnTheServer(net, recorder)
    async with running(source):
        hooks = net.hooks(f"http://127.0.0.1:{await source.port}/lease", TOKEN)
        await asyncio.to_thread(net.server.run, hooks / "radius-bridge-lease", "192.0.2.7", "600")
        await until(lambda: recorder.under_way, "the request")
        arguments = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
        assert any(b"curl" in each for each in arguments)
        assert not any(TOKEN.encode() in each for each in arguments)
        recorder.gate.set()
        await until(lambda: recorder.leases, "the lease")
