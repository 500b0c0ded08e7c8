import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.identity.bindings import EMPTY, Binding, Claim, apply
from radius_bridge.identity.events import Kind
from radius_bridge.registry.errors import BadRecord
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op
from radius_bridge.registry.records import Meta, changes, decode_binding, decode_meta, encode
from tests.registry.events import ADDRESS, event

KEYS = Keys()
NOW = 1_800_000_000.0
ALICE = apply(EMPTY, event(Kind.START, "alice", NOW, ADDRESS, lease=60.9), NOW)
ALICE_KEY = "befw/$alias$/$user.alice$/192.0.2.1"
BOB_KEY = "befw/$alias$/$user.bob$/192.0.2.1"
BINDING_KEY = "befw/$binding$/192.0.2.1"


def test_a_first_login_writes_the_binding_and_the_member_and_expects_nobody_there() -> None:
    assert changes(KEYS, ADDRESS, EMPTY, ALICE, 0) == [
        Op.cas(BINDING_KEY, encode(ALICE), 0),
        Op.set(ALICE_KEY, b"1800000060"),
    ]


def test_an_address_that_moves_leaves_the_old_users_group_in_the_same_transaction() -> None:
    bob = apply(ALICE, event(Kind.START, "bob", NOW + 5, ADDRESS), NOW + 5)
    assert changes(KEYS, ADDRESS, ALICE, bob, 7) == [
        Op.cas(BINDING_KEY, encode(bob), 7),
        Op.delete(ALICE_KEY),
        Op.set(BOB_KEY, b"1800003605"),
    ]


def test_a_logout_removes_the_member_and_keeps_the_record() -> None:
    gone = apply(ALICE, event(Kind.STOP, "alice", NOW + 5, ADDRESS), NOW + 5)
    assert changes(KEYS, ADDRESS, ALICE, gone, 7) == [
        Op.cas(BINDING_KEY, encode(gone), 7),
        Op.delete(ALICE_KEY),
    ]


def test_an_event_that_changes_nothing_only_checks_that_this_is_still_so() -> None:
    assert changes(KEYS, ADDRESS, ALICE, ALICE, 7) == [Op.check(BINDING_KEY, 7)]
    assert changes(KEYS, ADDRESS, EMPTY, EMPTY, 0) == [Op("check-not-exists", BINDING_KEY)]


@given(
    st.dictionaries(
        st.text(max_size=40),
        st.builds(
            Claim,
            user=st.text(max_size=40),
            since=st.floats(0, 4e9),
            at=st.floats(0, 4e9),
            expires=st.floats(0, 4e9),
            ended=st.booleans(),
            mac=st.text(max_size=20),
        ),
        max_size=5,
    )
)
def test_what_is_written_is_read_back(claims: dict[str, Claim]) -> None:
    assert decode_binding("key", encode(Binding(claims))) == Binding(claims)


@pytest.mark.parametrize("value", [b"", b"1700000000", b"{}", b'{"claims":[]}', b'{"claims":{"s":{}}}', b"\xff", b"{"])
def test_a_value_that_is_no_binding_is_refused_with_its_key(value: bytes) -> None:
    with pytest.raises(BadRecord, match="some/key"):
        decode_binding("some/key", value)


def test_a_registry_of_another_schema_is_refused() -> None:
    assert decode_meta("key", encode(Meta(1, "g"))) == Meta(1, "g")
    with pytest.raises(BadRecord, match="schema 2"):
        decode_meta("key", encode(Meta(2, "g")))
