from radius_bridge.identity.bindings import EMPTY, RETENTION, Binding, apply
from radius_bridge.identity.events import Kind
from radius_bridge.policy.members import Prefix
from radius_bridge.registry.known import Known
from tests.registry.events import ADDRESS, OTHER, event

NOW = 1_800_000_000.0


def login(user: str, at: float = NOW) -> Binding:
    return apply(EMPTY, event(Kind.START, user, at, ADDRESS), at)


def test_an_address_nobody_spoke_of_is_empty_and_has_no_record() -> None:
    assert Known().get(ADDRESS) == (EMPTY, 0)


def test_a_session_leads_to_its_addresses() -> None:
    known = Known()
    known.put(ADDRESS, login("alice"), 5)
    known.put(OTHER, login("alice"), 6)
    assert known.get(ADDRESS) == (login("alice"), 5)
    assert known.addresses("nas/alice") == {ADDRESS, OTHER}
    assert known.addresses("nas/bob") == frozenset()


def test_a_claim_counts_before_it_is_committed_and_not_after_it_was_taken_back() -> None:
    known = Known()
    known.claim("nas/alice", ADDRESS)
    assert known.addresses("nas/alice") == {ADDRESS}
    known.unclaim("nas/alice", ADDRESS)
    assert known.addresses("nas/alice") == frozenset()


def test_a_committed_claim_is_not_taken_back() -> None:
    known = Known()
    known.put(ADDRESS, login("alice"), 5)
    known.unclaim("nas/alice", ADDRESS)
    assert known.addresses("nas/alice") == {ADDRESS}


def test_an_address_whose_record_is_gone_is_forgotten() -> None:
    known = Known()
    known.put(ADDRESS, login("alice"), 5)
    known.drop(ADDRESS)
    assert known.get(ADDRESS) == (EMPTY, 0)
    assert known.addresses("nas/alice") == frozenset()


def test_beyond_the_limit_the_longest_unchanged_goes_first() -> None:
    known = Known(limit=3)
    addresses = [Prefix(4, number, 32) for number in range(5)]
    for index, address in enumerate(addresses, 1):
        known.put(address, login(f"user{address.number}"), index)
    known.prune(NOW)
    assert [known.get(address)[1] for address in addresses] == [0, 0, 3, 4, 5]
    assert known.addresses("nas/user0") == frozenset()


def test_what_no_late_packet_can_contradict_makes_room_by_itself() -> None:
    known = Known()
    known.put(ADDRESS, login("alice", NOW - 3600 - RETENTION), 1)
    known.put(OTHER, login("bob"), 2)
    known.prune(NOW)
    assert len(known) == 1
