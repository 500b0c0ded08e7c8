import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.identity.bindings import EMPTY, Binding, Claim, Leased
from radius_bridge.identity.events import Restart
from radius_bridge.identity.sessions import Session
from radius_bridge.registry.errors import BadRecord
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op
from radius_bridge.registry.records import (
    Meta,
    Restarted,
    changes,
    decode_binding,
    decode_meta,
    decode_restart,
    decode_session,
    encode,
    everybodys,
)

KEYS = Keys()
NOW = 1_800_000_000.0
ADDRESS = "192.0.2.1"
ALICE_KEY = "befw/$alias$/$user.alice$/192.0.2.1"
BOB_KEY = "befw/$alias$/$user.bob$/192.0.2.1"
STAFF_KEY = "befw/$alias$/$radius.staff$/192.0.2.1"
BINDING_KEY = "befw/$binding$/192.0.2.1"


def claim(user: str, since: float = NOW, term: float = 60.9, **more: object) -> Claim:
    return Claim(user, since, since, since + term, since + term, **more)  # type: ignore[arg-type]


ALICE = Binding({"nas/1": claim("alice")})


def test_a_first_login_writes_the_binding_and_the_member_and_expects_nobody_there() -> None:
    assert changes(KEYS, ADDRESS, EMPTY, ALICE, 0, NOW) == [
        Op.cas(BINDING_KEY, encode(ALICE), 0),
        Op.set(ALICE_KEY, b"1800000060"),
    ]


def test_an_address_that_moves_leaves_the_old_users_group_in_the_same_transaction() -> None:
    bob = Binding({**ALICE.claims, "nas/2": claim("bob", NOW + 5, 3600)})
    assert changes(KEYS, ADDRESS, ALICE, bob, 7, NOW) == [
        Op.cas(BINDING_KEY, encode(bob), 7),
        Op.delete(ALICE_KEY),
        Op.set(BOB_KEY, b"1800003605"),
    ]


def test_an_address_that_moves_leaves_a_user_whose_time_is_over_by_our_clock_though_maybe_not_by_a_hosts() -> None:
    later = NOW + 70
    bob = Binding({**ALICE.claims, "nas/2": claim("bob", later, 3600)})
    ops = changes(KEYS, ADDRESS, ALICE, bob, 7, later)
    assert Op.delete(ALICE_KEY) in ops, "two users would have the address where the clock is ten seconds behind"
    assert changes(KEYS, ADDRESS, bob, bob, 8, later)[1:] == [], "once"


def test_groups_from_attributes_get_the_address_until_the_same_end() -> None:
    staff = Binding({"nas/1": claim("alice", groups=("radius.staff",))})
    assert changes(KEYS, ADDRESS, EMPTY, staff, 0, NOW)[1:] == [
        Op.set(ALICE_KEY, b"1800000060"),
        Op.set(STAFF_KEY, b"1800000060"),
    ]
    assert changes(KEYS, ADDRESS, staff, ALICE, 7, NOW)[1:] == [Op.delete(STAFF_KEY)]


def test_a_logout_removes_the_member_and_keeps_the_record() -> None:
    gone = Binding({"nas/1": claim("alice", ended=NOW + 5)})
    assert changes(KEYS, ADDRESS, ALICE, gone, 7, NOW) == [
        Op.cas(BINDING_KEY, encode(gone), 7),
        Op.delete(ALICE_KEY),
    ]


def test_what_a_dead_writer_may_not_have_announced_includes_what_is_gone() -> None:
    bob = Binding({**ALICE.claims, "nas/2": claim("bob", NOW + 5, 3600)})
    assert everybodys(KEYS, ADDRESS, bob, NOW) == {ALICE_KEY: None, BOB_KEY: b"1800003605"}


times = st.floats(0, 4e9)
claims = st.builds(
    Claim,
    user=st.text(max_size=40),
    since=times,
    seen=times,
    limit=times,
    fallback=times,
    ended=times,
    mac=st.text(max_size=20),
    groups=st.lists(st.text(max_size=9), max_size=3).map(tuple),
)
leases = st.builds(Leased, since=times, at=times, expires=times, ended=times, source=st.text(max_size=9))


@given(
    st.dictionaries(st.text(max_size=40), claims, max_size=5), st.dictionaries(st.text(max_size=17), leases, max_size=3)
)
def test_a_binding_that_is_written_is_read_back(claims: dict[str, Claim], leases: dict[str, Leased]) -> None:
    assert decode_binding("key", encode(Binding(claims, leases))) == Binding(claims, leases)


def test_a_session_and_a_restart_that_are_written_are_read_back() -> None:
    session = Session("alice", NOW, NOW + 1, NOW + 2, NOW, "campus", 60, 600, ended=NOW + 2, addresses=(ADDRESS,))
    assert decode_session("key", encode(session)) == session
    key = KEYS.restart("campus", "switch-1")
    assert decode_restart(KEYS, key, encode(Restarted(1.0, 2.0))) == Restart("campus", "switch-1", 1.0, 2.0)


@pytest.mark.parametrize("value", [b"", b"1700000000", b'{"claims":[]}', b'{"claims":{"s":{}}}', b"\xff", b"{"])
def test_a_value_that_is_no_binding_is_refused_with_its_key(value: bytes) -> None:
    with pytest.raises(BadRecord, match="some/key"):
        decode_binding("some/key", value)


@pytest.mark.parametrize("value", [b"", b"{}", b"1", b"\xff"])
def test_a_value_that_is_no_session_and_no_restart_is_refused_with_its_key(value: bytes) -> None:
    with pytest.raises(BadRecord, match="some/key"):
        decode_session("some/key", value)
    with pytest.raises(BadRecord, match="campus/"):
        decode_restart(KEYS, KEYS.restart("campus", ""), value)


def test_a_restart_of_nobody_is_refused() -> None:
    with pytest.raises(BadRecord, match="names no client"):
        decode_restart(KEYS, f"{KEYS.restarts}campus", encode(Restarted(1.0, 2.0)))


def test_a_registry_of_another_schema_is_refused() -> None:
    assert decode_meta("key", encode(Meta(1, "g"))) == Meta(1, "g")
    with pytest.raises(BadRecord, match="schema 2"):
        decode_meta("key", encode(Meta(2, "g")))
