"""What follows for one session from what becomes known of another, whoever recorded that, and however we hear of it."""

import asyncio
from collections.abc import Sequence

import pytest

from radius_bridge.registry import announcer, pages
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.feed import Change
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Listing
from radius_bridge.registry.lanes import Lanes
from radius_bridge.registry.records import decode_binding
from tests.identity.world import LAPTOP, NOW, PHONE, X, Y, interim, leased, restart, start, stop
from tests.registry.fake_consul import FakeConsul, Fault
from tests.registry.lanes_model import settled
from tests.waiting import until

KEYS = Keys()
LATER = NOW + 3000


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (announcer, pages):
        monkeypatch.setattr(module, "QUIET", 0.001)


def make_lanes(consul: FakeConsul) -> Lanes:
    return Lanes(consul, KEYS, count=1, clock=lambda: LATER)


def owner(consul: FakeConsul) -> str:
    """Who has X, as Consul has it."""
    key = KEYS.binding(X)
    return decode_binding(key, consul.store[key].value).holding(LATER).user


async def test_who_took_an_address_over_hears_what_is_told_of_it_later() -> None:
    """What an Interim tells late may change what a session says of an address, and nothing of the session itself."""
    consul = FakeConsul()
    async with make_lanes(consul) as lanes:
        await lanes.submit(start("alice", "sw/1", at=400, mac=LAPTOP))
        await lanes.submit(start("alice", "ap/1", at=2400, mac=LAPTOP))
        await lanes.submit(start("carol", "sw/3", X, at=800))
        await lanes.submit(stop("alice", "sw/1", X, at=2800, mac=LAPTOP))
        await settled(lanes)
        assert owner(consul) == "carol", "as far as is known, alice had it before carol came"
        await lanes.submit(interim("alice", "sw/1", X, at=1200, mac=LAPTOP))
        await settled(lanes)
    assert owner(consul) == "alice"


async def test_of_two_restarts_in_one_transaction_the_later_counts() -> None:
    consul = FakeConsul()
    async with make_lanes(consul) as lanes:
        await lanes.submit(start("alice", "ap1/1", X, at=400))
        await asyncio.gather(lanes.submit(restart(at=800)), lanes.submit(restart(at=100)))
        await settled(lanes)
    assert owner(consul) == ""


async def test_a_lease_does_not_bring_back_a_session_that_another_bridge_has_ended() -> None:
    consul = FakeConsul()
    async with make_lanes(consul) as one, make_lanes(consul) as two:
        await one.submit_lease(leased(at=300))
        await one.submit(start("alice", "ap1/1", X, at=400, mac=LAPTOP))
        two.learn(consul.store.values())
        await one.submit(restart(at=800))
        assert owner(consul) == ""
        await two.submit_lease(leased(at=1500))
        await settled(two)
    assert owner(consul) == ""


async def test_what_is_found_when_an_answer_was_lost_has_its_consequences() -> None:
    faults = [Fault.NONE]
    consul = FakeConsul(lambda: faults.pop() if faults else Fault.NONE)
    async with make_lanes(consul) as lanes:
        await lanes.submit(start("alice", "ap1/1", X, at=400, mac=PHONE))
        await lanes.submit(start("alice", "ap2/1", at=1000, mac=PHONE))
        await settled(lanes)
        faults.append(Fault.ANSWER_LOST)
        await lanes.submit(interim("bob", "ap1/1", at=2000, mac=PHONE))  # they are no kin after all
        await settled(lanes)
    assert owner(consul) == "bob"


@pytest.mark.parametrize("is_read_meanwhile", [False, True])
@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.LATE])
async def test_other_bridges_are_told_what_was_committed_though_the_answer_was_lost(
    fault: Fault, is_read_meanwhile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [fault]
    consul = FakeConsul(lambda: faults.pop() if faults else Fault.NONE)
    async with make_lanes(consul) as lanes:
        told: set[str] = set()
        announce = lanes.identity.announce

        def tell(some: Sequence[Change]) -> asyncio.Future[None]:
            told.update(each.key for each in some)
            return announce(some)

        monkeypatch.setattr(lanes.identity, "announce", tell)
        login = lanes.submit(start("alice", "ap1/1", X, at=400))
        if is_read_meanwhile:
            await until(lambda: consul.store, "the commit", every=0)
            await lanes.load()
        await login
        await settled(lanes)
    assert told == {KEYS.session("ap1/1"), KEYS.binding(X)}


async def test_what_was_read_before_a_reading_failed_has_its_consequences(monkeypatch: pytest.MonkeyPatch) -> None:
    consul = FakeConsul()

    async def no_bindings(prefix: str) -> Listing:
        if prefix == KEYS.bindings:
            raise RegistryError("no answer")
        return await FakeConsul.read_keys(consul, prefix)

    async with make_lanes(consul) as one, make_lanes(consul) as two:
        await one.submit(start("alice", "ap1/1", X, at=400))
        await two.submit(restart(at=800))
        with monkeypatch.context() as patch:
            patch.setattr(consul, "read_keys", lambda prefix, **_: no_bindings(prefix))
            with pytest.raises(RegistryError):
                await two.load()
        assert owner(consul) == "alice"
        await two.load()
        await settled(two)
    assert owner(consul) == ""


async def test_a_lease_that_shows_a_session_to_be_over_leaves_no_claim_behind_that_is_not_known_yet() -> None:
    consul = FakeConsul()
    async with make_lanes(consul) as one, make_lanes(consul) as two:
        await one.submit_lease(leased(LAPTOP, X, at=500, term=9000))
        two.learn([consul.store[KEYS.binding(X)]])
        await two.submit(restart(at=450))
        await one.submit(start("alice", "ap1/1", at=400, mac=LAPTOP))
        assert owner(consul) == "alice", "the first bridge has not heard of the restart"
        done = two.submit_lease(leased(LAPTOP, Y, at=600))
        two.learn([consul.store[KEYS.session("ap1/1")]])  # and not what it claims
        await done
        await settled(two)
    assert owner(consul) == ""
