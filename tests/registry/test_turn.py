"""One transaction in the making: what it checks besides what it writes."""

from msgspec.structs import replace

from radius_bridge.identity import sessions
from radius_bridge.identity.bindings import Binding, Leased
from radius_bridge.identity.events import Kind
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.known import Known
from radius_bridge.registry.kv import Op
from radius_bridge.registry.records import encode
from radius_bridge.registry.turn import Added, Refresh, Turn
from tests.registry.events import ADDRESS, event

KEYS = Keys()
NOW = 1_800_000_000.0
MAC = "02:00:00:00:00:01"


def test_what_a_session_gets_while_it_is_not_written_itself_holds_only_if_no_other_bridge_has_ended_it() -> None:
    session = replace(sessions.heard(None, event(Kind.START, "alice", NOW, mac=MAC)), leased=(str(ADDRESS),))
    binding = Binding({}, {MAC: Leased(NOW, NOW, NOW + 600)})
    known = Known(KEYS)
    known.put_session(KEYS.session("nas/alice"), session, encode(session), 7)
    known.put_binding(KEYS.binding(ADDRESS), binding, encode(binding), 8)
    turn = Turn(KEYS, known, lambda _source, _address: True, NOW)
    assert turn.add(Refresh("nas/alice")) == (Added.CHANGES, {KEYS.binding(ADDRESS)})
    assert Op.check(KEYS.session("nas/alice"), 7) in turn.ops
