"""The fuzzer finds what it is made to find, and is quiet otherwise."""

import asyncio
from datetime import date
from random import Random

import pytest

from radius_bridge.radius.hello import offered
from radius_bridge.radius.sockets import read_control
from soak.frame import Failed, entry
from soak.fuzz import Mutator, _mutate, _try, corpus
from soak.sockets import Sessions
from soak.targets import TARGETS, Server, seeds, signed


def test_the_same_seed_makes_the_same_octets() -> None:
    one, two, other = (Mutator(seed, seeds()) for seed in (1, 1, 2))
    made = [one() for _ in range(100)]
    assert made == [two() for _ in range(100)] != [other() for _ in range(100)]
    assert sum(octets not in seeds() for octets in made) > 80


async def test_seeds_are_events_and_responses_when_they_are_genuine() -> None:
    server = Server()
    for seed in seeds():
        server.receive(seed)
    assert server.events >= 3
    assert server.responses >= 5


async def test_a_signed_packet_is_genuine_whatever_is_in_it() -> None:
    server = Server()
    made = signed(seeds()[0][:-1] + b"\x09")
    assert made is not None
    assert server.receive(made) is None
    assert signed(b"short") is None


def test_what_escapes_is_told_with_the_octets_that_did_it() -> None:
    def broken(data: bytes) -> None:
        raise KeyError(data)

    with pytest.raises(Failed, match=r"KeyError: .*\(seed 7\) by the octets 0102"):
        _try(broken, b"\x01\x02", 7)


def test_a_short_run_holds() -> None:
    figures = asyncio.run(_mutate(0.5))
    assert figures["mutated_packets"] > 1000
    assert figures["events_of_unsigned_packets"] == figures["responses_to_unsigned_packets"] == 0
    assert figures["events_of_signed_packets"] > 0
    assert figures["batches_through_sockets"] > 0
    assert figures["dtls_sessions"] > 0


def test_a_seed_of_each_target_reaches_what_it_is_for() -> None:
    assert all(corpus(name) for name in TARGETS)
    assert [offered(octets) for octets in corpus("hello")] == [(), (b"radius/1.0",), (b"radius/1.1", b"radius/1.0")]
    assert read_control(corpus("control")[1]).dropped == 7


async def test_an_undisturbed_dtls_session_carries_events() -> None:
    server = Server()
    with Sessions(server.service, Random(1), lambda octets: octets) as sessions:
        for _ in range(8):
            sessions.attack(seeds()[:1])
    assert sessions.established > 0
    assert server.events > 0


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_takes_any_octets(name: str) -> None:
    for octets in (b"", b"\0" * 100, b"\xff" * 100, *seeds()):
        TARGETS[name](octets)


def test_a_result_is_a_dated_section() -> None:
    text = entry("fuzz", 1.5, {"mutated_packets": 10_000_000, "resident_at_the_end_mib": 61.25}, date(2026, 1, 2))
    assert "## 2026-01-02: fuzz, 1.5 minutes" in text
    assert "| mutated packets | 10,000,000 |" in text
    assert "| resident at the end mib | 61.25 |" in text
