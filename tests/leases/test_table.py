"""What has changed at a DHCP server that shows all its leases."""

from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.identity.events import Lease
from radius_bridge.leases.table import Table
from radius_bridge.policy.members import Prefix, parse_prefix

NOW = 1_000_000.0


def leases(*hosts: int, mac: str = "", expires: float = NOW + 600) -> dict[Prefix, Lease]:
    made = (Lease(parse_prefix(f"192.0.2.{host}"), mac or f"00:{host}", NOW, expires, "dhcp") for host in hosts)
    return {lease.address: lease for lease in made}


class Server:
    """A table, and what it says in short: hosts that live, hosts whose lease ended."""

    def __init__(self) -> None:
        self.table = Table()
        self.doubt = ""

    def shows(self, what: dict[Prefix, Lease], now: float = NOW, *, complete: bool = True) -> tuple[set[int], set[int]]:
        changes, self.doubt = self.table.compare(what, now, complete=complete)
        ended = {each.address.number & 255 for each in changes if each.expires <= each.at}
        return {each.address.number & 255 for each in changes} - ended, ended


def test_only_what_is_new_or_renewed_or_anothers_is_told() -> None:
    server = Server()
    assert server.shows(leases(1, 2, 3)) == ({1, 2, 3}, set())
    assert server.shows(leases(1, 2, 3)) == (set(), set())
    assert server.shows(leases(1) | leases(2, mac="new") | leases(3, expires=NOW + 900)) == ({2, 3}, set())


def test_a_lease_ends_at_the_second_look_without_it() -> None:
    server = Server()
    server.shows(leases(1, 2, 3))
    assert server.shows(leases(1, 2)) == (set(), set())
    doubts = server.table.doubts
    assert server.shows(leases(1, 2)) == (set(), {3})
    assert doubts
    assert not server.table.doubts
    assert server.shows(leases(1, 2)) == (set(), set())


def test_a_lease_that_is_back_at_the_second_look_never_ended() -> None:
    server = Server()
    server.shows(leases(1, 2, 3))
    server.shows(leases(1, 2))
    assert server.shows(leases(1, 2, 3)) == (set(), set())
    assert server.shows(leases(1, 2)) == (set(), set())


def test_nothing_ends_because_of_what_is_not_complete() -> None:
    server = Server()
    server.shows(leases(1, 2, 3))
    for _ in range(5):
        assert server.shows(leases(1, 2, 4), complete=False) in [({4}, set()), (set(), set())]
    assert server.shows(leases(1, 2, 4)) == (set(), set())


def test_when_most_stations_vanish_at_once_none_is_ended_before_its_time() -> None:
    server = Server()
    server.shows(leases(*range(10)))
    for _ in range(3):
        assert server.shows(leases(1, 2)) == (set(), set())
        assert server.doubt == "the leases of 8 of 10 stations vanished at once: they stay until they run out"
    assert server.shows(leases(*range(10))) == (set(), set())
    assert not server.doubt
    # What ran out is no surprise.
    assert server.shows(leases(1, expires=NOW + 2000), NOW + 700) == ({1}, set())
    assert not server.doubt


def test_the_only_station_may_leave_with_all_its_addresses() -> None:
    server = Server()
    server.shows(leases(1, 2, mac="one"))
    server.shows({})
    assert server.shows({}) == (set(), {1, 2})


def test_what_has_run_out_is_not_told() -> None:
    server = Server()
    assert server.shows(leases(1, expires=NOW)) == (set(), set())


@given(st.lists(st.tuples(st.sets(st.integers(0, 9)), st.booleans()), max_size=30))
def test_what_is_told_leads_to_what_is_there_but_for_what_is_not_believed(looks: list[tuple[set[int], bool]]) -> None:
    server, told, shown = Server(), set[int](), set[int]()
    for shown, complete in looks:
        live, ended = server.shows(leases(*shown), complete=complete)
        told = told - ended | live
        assert shown <= told
    for _ in range(2):
        live, ended = server.shows(leases(*shown))
        told = told - ended | live
    assert told == shown or server.doubt
