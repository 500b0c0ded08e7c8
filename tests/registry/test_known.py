from radius_bridge.identity.bindings import EMPTY, Binding, Claim, Leased
from radius_bridge.identity.sessions import RETENTION, Session
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.known import ALIKE, Known
from radius_bridge.registry.records import Restarted, encode

NOW = 1_800_000_000.0
KEYS = Keys()
MAC = "02:00:00:00:00:01"


def session(user: str = "alice", at: float = NOW, mac: str = MAC, multi: str = "", **more: float) -> Session:
    return Session(user, at, at, at, at, "campus", 3600, 3600, mac=mac, multi=multi, **more)  # type: ignore[arg-type]


def put(known: Known, name: str, what: Session, index: int = 1) -> None:
    known.put(KEYS.session(name), encode(what), index)


def test_what_nobody_spoke_of_is_empty_and_has_no_record() -> None:
    known = Known(KEYS)
    assert known.binding("192.0.2.1") == EMPTY
    assert known.session("nas/1") is None
    assert known.index(KEYS.binding("192.0.2.1")) == known.index(KEYS.session("nas/1")) == 0


def test_a_mac_address_leads_to_its_sessions_and_leases() -> None:
    known = Known(KEYS)
    put(known, "nas/1", session())
    put(known, "nas/2", session("bob"))
    known.put(KEYS.binding("192.0.2.1"), encode(Binding({}, {MAC: Leased(NOW, NOW, NOW + 60)})), 3)
    assert known.stations(MAC) == ["nas/1", "nas/2"]
    assert known.leases(MAC) == ["192.0.2.1"]
    known.drop(KEYS.session("nas/1"))
    known.drop(KEYS.binding("192.0.2.1"))
    assert (known.stations(MAC), known.leases(MAC)) == (["nas/2"], [])


def test_kin_have_a_mac_address_or_a_multi_session_id_in_common() -> None:
    known = Known(KEYS)
    put(known, "nas/1", session(mac="", multi="m"))
    put(known, "nas/2", session())
    put(known, "nas/3", session(mac="02:00:00:00:00:09"))
    assert known.kin("nas/4", session(multi="m")) == ["nas/2", "nas/1"]
    assert known.kin("nas/2", session(mac="")) == []


def test_a_nas_leads_to_its_sessions_and_a_client_to_those_of_all() -> None:
    known = Known(KEYS)
    for name in ("a/1", "a/2", "b/1"):
        put(known, name, session())
    assert known.of_nas("campus", "a") == ["a/1", "a/2"]
    assert known.of_nas("campus", "") == ["a/1", "a/2", "b/1"]
    assert known.of_nas("branch", "a") == []


def test_the_restarts_of_a_nas_are_its_own_and_those_of_its_client() -> None:
    known = Known(KEYS)
    known.put(KEYS.restart("campus", "a"), encode(Restarted(NOW, NOW)), 1)
    known.put(KEYS.restart("campus", ""), encode(Restarted(NOW, NOW)), 2)
    known.put(KEYS.restart("branch", "a"), encode(Restarted(NOW, NOW)), 3)
    assert {each.nas for each in known.restarts("campus", "a")} == {"a", ""}
    assert {each.nas for each in known.restarts("campus", "b")} == {""}


def test_a_record_that_cannot_be_read_is_told_and_counts_as_empty() -> None:
    told: list[str] = []
    known = Known(KEYS, bad_record=told.append)
    known.put(KEYS.session("nas/1"), b"?", 7)
    known.put(KEYS.binding("192.0.2.1"), b"?", 8)
    known.put(f"{KEYS.bindings}nowhere", b"{}", 9)
    known.put(f"{KEYS.restarts}nobody", b"{}", 10)
    lost = Session("alice", NOW, NOW, NOW, NOW, "campus", 3600, 3600, addresses=("nowhere",))
    known.put(KEYS.session("nas/2"), encode(lost), 11)
    assert len(told) == 5
    assert known.session("nas/2") is None, "or whoever compares its address with a network would fail, again and again"
    assert known.session("nas/1") is None
    assert known.index(KEYS.session("nas/1")) == 7, "so that the next event can replace it"
    assert known.binding("192.0.2.1") == EMPTY


def test_beyond_the_limit_the_longest_unchanged_goes_first() -> None:
    known = Known(KEYS, limit=3)
    for number in range(5):
        put(known, f"nas/{number}", session(mac=f"mac{number}"))
    put(known, "nas/2", session(mac="mac2"), 9)
    known.prune(NOW)
    assert [number for number in range(5) if known.session(f"nas/{number}")] == [2, 3, 4]
    assert known.stations("mac0") == []


def test_what_no_late_packet_can_contradict_makes_room_by_itself() -> None:
    known = Known(KEYS)
    put(known, "nas/1", session(ended=NOW - RETENTION))
    put(known, "nas/2", session())
    claim = Claim("alice", NOW - 9000, NOW - 9000, NOW - RETENTION, NOW - RETENTION)
    known.put(KEYS.binding("192.0.2.1"), encode(Binding({"nas/1": claim})), 3)
    known.put(KEYS.restart("campus", "a"), encode(Restarted(NOW, NOW - RETENTION)), 4)
    known.prune(NOW)
    assert len(known) == 1


def test_what_stays_for_long_keeps_nothing_that_ended_behind_it() -> None:
    known = Known(KEYS)
    put(known, "nas/stays", session(mac="stays"))
    known.put(KEYS.binding("192.0.2.1"), encode(Binding({}, {MAC: Leased(NOW, NOW, NOW + 1e9)})), 1)
    for number in range(1000):
        put(known, f"nas/{number}", session(mac=f"mac{number}", ended=NOW - RETENTION))
        known.put(KEYS.binding(f"192.0.3.{number % 256}"), encode(Binding({}, {MAC: Leased(1, 1, 2, 2)})), 2)
    for _ in range(100):  # each looks at a few
        known.prune(NOW)
    assert len(known) == 2
    assert known.session("nas/stays") is not None
    assert known.leases(MAC) == ["192.0.2.1"]


def test_a_mac_address_that_all_stations_have_leads_to_the_newest_only() -> None:
    known = Known(KEYS)
    for number in range(1000):
        put(known, f"nas/{number}", session(f"user{number}"))
    assert known.stations(MAC) == [f"nas/{number}" for number in range(1000 - ALIKE, 1000)]
    put(known, "nas/7", session("user7", at=NOW + 1))
    assert known.stations(MAC)[-1] == "nas/7"
    for number in range(1000):
        known.drop(KEYS.session(f"nas/{number}"))
    assert (known.stations(MAC), len(known)) == ([], 0)
