"""What extends an end by little is acknowledged and not written, so that interim updates are cheap."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from radius_bridge.identity import bindings, sessions
from radius_bridge.identity.bindings import Binding, Claim, Leased
from radius_bridge.identity.events import Event, Kind, Lease, Restart
from radius_bridge.identity.sessions import SLIGHT
from radius_bridge.policy.expiry import format_expiry
from radius_bridge.registry import announcer
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.lanes import Lanes
from tests.registry.events import ADDRESS, OTHER, event
from tests.registry.fake_consul import FakeConsul

KEYS = Keys()
NOW = 1_800_000_000.0
MAC, PHONE = "02:00:00:00:00:01", "02:00:00:00:00:02"
TERM = 3600
ALICE = "befw/$alias$/$user.alice$/192.0.2.1"


@dataclass
class Bridge:
    """Lanes whose clock is that of what they were told last."""

    consul: FakeConsul
    lanes: Lanes
    now: float = NOW

    async def tell(self, work: Event | Lease | Restart, now: float) -> int:
        """Tells something; gives the number of writes that it took."""
        self.now = now
        before = len(self.consul.sizes)
        await (self.lanes.submit_lease(work) if isinstance(work, Lease) else self.lanes.submit(work))
        return len(self.consul.sizes) - before

    async def start(self, *addresses: Any, **more: Any) -> int:
        """The same for a Start at NOW."""
        return await self.tell(
            event(Kind.START, "alice", NOW, *addresses, session="nas/alice", lease=TERM, **more), NOW
        )

    async def interim(self, at: float, *addresses: Any, user: str = "alice", **more: Any) -> int:
        """The same for an interim update of a session that began at NOW."""
        session = more.pop("session", "nas/alice")
        told = event(Kind.INTERIM, user, NOW + at, *addresses, session=session, lease=TERM, **more)
        return await self.tell(replace(told, started=NOW), NOW + at)

    @property
    def ends(self) -> bytes | None:
        """When alice has her address no more."""
        found = self.consul.store.get(ALICE)
        return None if found is None else found.value


@pytest.fixture
async def bridge(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bridge]:
    monkeypatch.setattr(announcer, "QUIET", 0.001)  # which a writer that ends gives its followers, too
    consul = FakeConsul()
    lanes = Lanes(consul, KEYS, clock=lambda: made.now)
    made = Bridge(consul, lanes)
    async with lanes:
        yield made


async def test_an_interim_update_that_extends_little_is_not_written_and_the_next_one_that_adds_up_is(
    bridge: Bridge,
) -> None:
    await bridge.start(ADDRESS)
    assert await bridge.interim(SLIGHT * TERM - 60, ADDRESS) == 0
    assert bridge.ends == format_expiry(NOW + TERM)
    assert await bridge.interim(SLIGHT * TERM + 60, ADDRESS) == 1
    assert bridge.ends == format_expiry(NOW + SLIGHT * TERM + 60 + TERM)


async def test_of_a_day_of_interim_updates_few_are_written_and_the_user_has_access_all_the_time(bridge: Bridge) -> None:
    written = await bridge.start(ADDRESS)
    for at in range(300, 86400, 300):
        assert int(bridge.ends or b"0") > NOW + at
        written += await bridge.interim(at, ADDRESS)
    assert written <= 86400 / (SLIGHT * TERM) + 1


async def test_a_lease_that_is_renewed_at_once_is_not_written_again_and_one_at_half_its_time_is(bridge: Bridge) -> None:
    await bridge.start(mac=MAC)
    assert await bridge.tell(Lease(ADDRESS, MAC, NOW + 1, NOW + 601, "kea"), NOW + 1) == 1
    assert await bridge.tell(Lease(ADDRESS, MAC, NOW + 30, NOW + 630, "kea"), NOW + 30) == 0
    assert await bridge.tell(Lease(ADDRESS, MAC, NOW + 301, NOW + 901, "kea"), NOW + 301) == 1
    assert bridge.ends == format_expiry(NOW + 901)


async def test_what_is_not_written_for_a_day_is_still_known_of_a_lease_and_a_session_that_have_not_met(
    bridge: Bridge,
) -> None:
    await bridge.start(mac=MAC)
    for at in range(600, 2 * 86400, 600):
        await bridge.tell(Lease(OTHER, PHONE, NOW + at, NOW + at + 1200, "kea"), NOW + at)
        await bridge.interim(at, mac=MAC)
    await bridge.tell(Lease(ADDRESS, MAC, NOW + at + 1, NOW + at + 601, "kea"), NOW + at + 1)
    assert bridge.ends == format_expiry(NOW + at + 601), "her session is live"
    bob = event(Kind.START, "bob", NOW + at + 2, mac=PHONE)
    await bridge.tell(bob, NOW + at + 2)
    found = bridge.consul.store["befw/$alias$/$user.bob$/192.0.2.2"].value
    assert NOW + at + 1200 - SLIGHT * 1200 <= int(found) <= NOW + at + 1200, "so is the lease of his station"


async def test_an_end_that_comes_nearer_is_written_however_little(bridge: Bridge) -> None:
    await bridge.start(mac=MAC)
    await bridge.tell(Lease(ADDRESS, MAC, NOW + 1, NOW + 601, "kea"), NOW + 1)
    assert await bridge.tell(Lease(ADDRESS, MAC, NOW + 2, NOW + 600, "kea"), NOW + 2) == 1
    assert bridge.ends == format_expiry(NOW + 600)


@pytest.mark.parametrize(
    "news",
    [{"user": "bob"}, {"mac": PHONE}, {"groups": ("radius.staff",)}, {"multi": "M"}, {"session": "nas/other"}],
    ids=str,
)
async def test_what_changes_more_than_an_end_is_written_at_once(bridge: Bridge, news: dict[str, Any]) -> None:
    await bridge.start(ADDRESS)
    assert await bridge.interim(3, ADDRESS, **news) == 1


async def test_another_address_is_written_at_once(bridge: Bridge) -> None:
    await bridge.start(ADDRESS)
    assert await bridge.interim(3, OTHER) == 1


async def test_a_session_without_an_address_that_goes_on_after_accounting_on_is_written_at_once(bridge: Bridge) -> None:
    await bridge.start(mac=MAC)
    await bridge.tell(Restart("127.0.0.1", "nas", NOW + 100, NOW + 100), NOW + 100)
    assert await bridge.interim(110, mac=MAC) == 1
    await bridge.tell(Lease(ADDRESS, MAC, NOW + 120, NOW + 720, "kea"), NOW + 120)
    assert bridge.ends == format_expiry(NOW + 720)


LONG = Claim("alice", NOW, NOW, NOW + 86400, NOW + TERM, mac=MAC)
HELD = Leased(NOW, NOW, NOW + 600, source="kea")
times = st.floats(-80, 80)


@given(is_leased=st.booleans(), seen=times, limit=times, fallback=times, at=times, expires=times)
def test_what_is_not_written_takes_at_most_a_tenth_of_a_users_time_and_gives_nobody_more(
    is_leased: bool, seen: float, limit: float, fallback: float, at: float, expires: float
) -> None:
    before = Binding({"nas/1": LONG}, {MAC: HELD} if is_leased else {})
    claim = replace(LONG, seen=NOW + seen, limit=LONG.limit + limit, fallback=LONG.fallback + fallback)
    renewed = {MAC: replace(HELD, at=NOW + at, expires=HELD.expires + expires)} if is_leased else {}
    after = Binding({"nas/1": claim}, renewed)
    if bindings.is_slight(before, after, NOW):
        written, meant = before.holding(NOW).expires, after.holding(NOW).expires
        assert meant - SLIGHT * (meant - NOW) <= written <= meant


def test_a_binding_whose_owner_or_groups_change_is_never_slight() -> None:
    before = Binding({"nas/1": LONG})
    assert bindings.is_slight(before, Binding({"nas/1": replace(LONG, seen=NOW + 60)}), NOW)
    for changed in ({"user": "bob"}, {"groups": ("radius.staff",)}, {"ended": NOW + 1}, {"mac": PHONE}):
        assert not bindings.is_slight(before, Binding({"nas/1": replace(LONG, **changed)}), NOW)
    two = Binding({"nas/1": LONG, "nas/2": Claim("bob", NOW + 1, NOW + 1, NOW + 2, NOW + 2)})
    heard = Binding({**two.claims, "nas/1": replace(LONG, seen=NOW + 60)})
    assert not bindings.is_slight(two, heard, NOW + 60), "she was heard after he was gone"
    back, newer = replace(LONG, is_back=True, mac=""), replace(LONG, user="bob", since=NOW + 1, seen=NOW + 1, mac="")
    heard = Binding({"nas/1": replace(back, seen=NOW + 2), "nas/2": newer})
    assert not bindings.is_slight(Binding({"nas/1": back, "nas/2": newer}), heard, NOW + 2), "she has the last word"


def test_an_end_of_a_lease_that_comes_nearer_is_never_slight_though_nobody_has_the_address() -> None:
    nearer = Binding({}, {MAC: replace(HELD, at=NOW + 1, expires=HELD.expires - 1)})
    assert not bindings.is_slight(Binding({}, {MAC: HELD}), nearer, NOW)


def test_a_session_that_ends_or_begins_anew_is_never_slight() -> None:
    told = event(Kind.START, "alice", NOW, ADDRESS, lease=TERM)
    session = sessions.heard(None, told)
    assert sessions.is_slight(session, sessions.heard(session, event(Kind.INTERIM, "alice", NOW + 9, ADDRESS)))
    assert not sessions.is_slight(session, sessions.heard(session, event(Kind.STOP, "alice", NOW + 9, ADDRESS)))
    assert not sessions.is_slight(session, sessions.heard(session, event(Kind.START, "alice", NOW + 99, ADDRESS)))
