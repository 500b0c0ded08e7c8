"""Who is behind an address: starts, stops, late packets, two users, two sessions."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from radius_bridge.identity.bindings import EMPTY, MAX_CLAIMS, RETENTION, Binding, apply
from radius_bridge.identity.events import Event, Kind
from radius_bridge.policy.members import parse_prefix

ADDRESS = parse_prefix("10.0.0.1")
NOW = 1_800_000_000.0


def event(kind: Kind, user: str = "alice", session: str = "nas/1", at: float = 0.0, **other: float) -> Event:
    """An event `at` seconds after NOW, whose lease is an hour unless told otherwise."""
    started = NOW + other.get("started", at)
    expires = NOW + other.get("expires", at + 3600)
    return Event(kind, user, session, (ADDRESS,), NOW + at, started, expires, "client")


def play(*events: Event, now: float | None = None) -> Binding:
    binding = EMPTY
    for each in events:
        binding = apply(binding, each, now if now is not None else each.at)
    return binding


START = event(Kind.START)
STOP = event(Kind.STOP, at=100)


def test_a_start_gives_the_address_to_its_user_until_the_lease_ends() -> None:
    binding = play(START)
    assert (binding.owner, binding.expires) == ("alice", NOW + 3600)


def test_a_stop_takes_it_away() -> None:
    assert play(START, STOP).owner == ""


def test_an_interim_update_extends_the_lease() -> None:
    assert play(START, event(Kind.INTERIM, at=600)).expires == NOW + 600 + 3600


def test_an_interim_update_alone_is_as_good_as_a_start() -> None:
    assert play(event(Kind.INTERIM)).owner == "alice"


def test_repeating_an_event_changes_nothing() -> None:
    once = play(START)
    assert apply(once, START, NOW + 5) is once
    stopped = play(START, STOP)
    assert apply(stopped, STOP, NOW + 105) is stopped


def test_a_start_that_arrives_after_its_own_stop_revives_nothing() -> None:
    assert play(STOP, START, now=NOW + 100).owner == ""
    assert play(START, STOP, START, now=NOW + 100).owner == ""


def test_at_equal_times_the_stop_wins_in_either_order() -> None:
    stop = event(Kind.STOP)
    assert play(START, stop).owner == ""
    assert play(stop, START).owner == ""


def test_an_interim_update_that_is_newer_than_the_stop_reopens() -> None:
    assert play(START, STOP, event(Kind.INTERIM, at=200)).owner == "alice"


def test_a_stop_ends_only_its_own_session() -> None:
    other = event(Kind.START, session="nas/2", at=50)
    assert play(START, other, STOP).owner == "alice"


def test_the_newer_session_of_another_user_takes_the_address() -> None:
    binding = play(START, event(Kind.START, "bob", "nas/2", at=50))
    assert binding.owner == "bob"
    assert [claim.user for claim in binding.live(NOW + 51).values()] == ["bob"]


def test_an_older_session_of_another_user_does_not() -> None:
    zombie = event(Kind.INTERIM, "bob", "nas/2", at=60, started=-1000)
    assert play(START, zombie).owner == "alice"


def test_nobody_inherits_an_address_when_the_newer_user_leaves() -> None:
    bob = event(Kind.START, "bob", "nas/2", at=50)
    assert play(START, bob, event(Kind.STOP, "bob", "nas/2", at=70)).owner == ""


def test_an_event_whose_lease_is_over_neither_binds_nor_evicts() -> None:
    old = event(Kind.START, "bob", "nas/2", at=50, expires=55)
    assert play(old, now=NOW + 60).owner == ""
    assert play(START, old, now=NOW + 60).owner == "alice"


def test_a_binding_is_forgettable_when_no_late_packet_is_plausible_any_more() -> None:
    binding = play(START, STOP)
    assert not binding.is_forgettable(NOW + 100 + RETENTION - 1)
    assert binding.is_forgettable(NOW + 100 + RETENTION)
    assert not play(START).is_forgettable(NOW + 3600 + RETENTION - 1)
    assert EMPTY.is_forgettable(NOW)


def test_the_number_of_claims_is_bounded_and_the_live_one_stays() -> None:
    events = [event(Kind.STOP, session=f"nas/{n}", at=n / 100) for n in range(3 * MAX_CLAIMS)]
    binding = play(START, *events)
    assert len(binding.claims) == MAX_CLAIMS
    assert play(*[replace(e, session=e.session + "x") for e in events], START, now=NOW + 2).owner == "alice"


def test_a_binding_survives_json() -> None:
    binding = play(START, event(Kind.START, "bob", "nas/2", at=50))
    assert msgspec.json.decode(msgspec.json.encode(binding), type=Binding) == binding


events = st.builds(
    lambda kind, user, session, at, length: event(kind, user, f"{user}/{session}", at, started=at, expires=at + length),
    st.sampled_from(Kind),
    st.sampled_from(["alice", "bob"]),
    st.integers(1, 2),
    st.integers(0, 20).map(float),
    st.integers(1, 30).map(float),
)


@given(st.lists(events, max_size=12))
def test_an_address_has_one_user_at_a_time(history: list[Event]) -> None:
    binding = EMPTY
    for each in history:
        binding = apply(binding, each, NOW + 20)
        assert len({claim.user for claim in binding.claims.values() if not claim.ended}) <= 1
        assert apply(binding, each, NOW + 20) is binding


@given(st.lists(events, min_size=1, max_size=8), st.randoms())
def test_one_sessions_events_end_in_the_same_state_in_any_order(history: list[Event], random: object) -> None:
    # One session, and per point of time one event: what a NAS sends.
    by_time = {e.at: replace(e, session="nas/1", user="alice") for e in history}
    in_order = [by_time[at] for at in sorted(by_time)]
    shuffled = list(by_time.values())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (play(*some, now=NOW + 20) for some in (in_order, shuffled))
    assert (one.owner, one.expires) == (other.owner, other.expires)
