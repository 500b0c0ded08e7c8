"""What an Accounting-Request says: an event about who is behind which address, or why it is none. Pure."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from urllib.parse import quote

from msgspec import Struct

from radius_bridge.identity.events import NOBODY, Event, Kind, Restart
from radius_bridge.identity.macs import mac_of
from radius_bridge.identity.names import NoUser
from radius_bridge.identity.sessions import MAX_ADDRESSES
from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.radius.addresses import Addresses, default
from radius_bridge.radius.clients import Client, Clients, Networks
from radius_bridge.radius.dictionary import standard
from radius_bridge.radius.packet import Attribute
from radius_bridge.radius.users import Users
from radius_bridge.radius.users import default as user_name_alone

OLDEST = 7 * 86400.0
"""How old (seconds) an Event-Timestamp may be: a proxy may keep packets over a long weekend; NAS clocks that
never were set are decades off. Outside the window the arrival counts."""

NEWEST = 300.0
"""How far (seconds) an Event-Timestamp may be ahead: clocks that are kept at all are within minutes."""

LONGEST = 366 * 86400.0
"""A Session-Timeout or Acct-Session-Time (seconds) beyond this is none: some NASes say 2³²−1."""

LONGEST_ID = 128
"""A NAS's or a session's name with more characters is cut and told apart by a hash."""


class NotBound(StrEnum):
    """Why a genuine packet binds no user; it is acknowledged all the same."""

    UNKNOWN_STATUS = "unknown-status"
    NO_SESSION_ID = "no-session-id"
    NO_NAME = NoUser.NO_NAME.value
    BAD_NAME = NoUser.BAD_NAME.value
    NEVER_BOUND = NoUser.NEVER_BOUND.value
    MACHINE = NoUser.MACHINE.value
    MAC = NoUser.MAC.value
    REALM = "realm"


class Outcome(Struct, frozen=True, gc=False):
    """What a packet comes to: an event, or a reason why there is none; or an event of nobody, and the reason."""

    event: Event | Restart | None
    not_bound: NotBound | None = None
    refused: tuple[Prefix, ...] = ()
    """Addresses that the packet names and the client may not bind."""
    ignored: int = 0
    """Attributes left out because their value cannot be of their type."""
    groups_left_out: int = 0
    """Groups that the packet's attributes name beyond what one session may have."""
    addresses_left_out: int = 0
    """Addresses that it names beyond that."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all clients."""

    default_lease: int
    """Seconds that a binding lasts if neither the packet nor the client says."""
    shared: Networks
    """Networks that are never bound: behind one address there are many (NAT, terminal servers)."""
    addresses: Addresses = field(default_factory=default)
    """Where addresses are in a packet."""
    users: Users = field(default_factory=user_name_alone)
    """Where the user's name and groups are, and what names mean."""
    longest: int = 86400
    """Seconds that a binding lasts at most after something was last heard of its session."""
    _bindable: dict[Networks, Networks] = field(default_factory=dict, init=False, repr=False, compare=False)

    def bindable(self, networks: Networks) -> Networks:
        """What may be bound of a client's networks: an address, or a network that is all in one of them."""
        known = self._bindable.get(networks)
        if known is None:
            known = self._bindable[networks] = networks.without(_NOBODYS).without(self.shared)
        return known


@dataclass(slots=True)
class Permissions:
    """What clients may bind, as it is configured at the moment."""

    clients: Clients
    rules: Rules

    def may_bind(self, source: str, address: str) -> bool:
        """True if sessions that the client `source` (its name) told of may have an address (in text)."""
        client = self.clients.named(source)
        return client is not None and parse_prefix(address) in self.rules.bindable(client.networks)


_attributes = standard()
_decode = {attribute.number: attribute.type.decode for attribute in _attributes if len(attribute.path) == 1}
_NAS_IP_ADDRESS = _attributes["NAS-IP-Address"].number
_NAS_IPV6_ADDRESS = _attributes["NAS-IPv6-Address"].number
_NAS_IDENTIFIER = _attributes["NAS-Identifier"].number
_SESSION_TIMEOUT = _attributes["Session-Timeout"].number
_CALLING_STATION_ID = _attributes["Calling-Station-Id"].number
_STATUS_TYPE = _attributes["Acct-Status-Type"].number
_DELAY_TIME = _attributes["Acct-Delay-Time"].number
_SESSION_ID = _attributes["Acct-Session-Id"].number
_SESSION_TIME = _attributes["Acct-Session-Time"].number
_MULTI_SESSION_ID = _attributes["Acct-Multi-Session-Id"].number
_EVENT_TIMESTAMP = _attributes["Event-Timestamp"].number

_status = _attributes["Acct-Status-Type"].values
_KINDS: dict[bytes | None, Kind] = {
    _status["Start"].to_bytes(4): Kind.START,
    _status["Interim-Update"].to_bytes(4): Kind.INTERIM,
    _status["Stop"].to_bytes(4): Kind.STOP,
}
"""By the value as it is in the packet."""
_ON_OFF = {_status["Accounting-On"], _status["Accounting-Off"]}

_NO_USER = {reason: NotBound(reason.value) for reason in NoUser}

_NOBODYS = Networks(
    parse_prefix(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "::1", "fe80::/10", "ff00::/8")
)
"""This host, loopback, link-local, multicast: no sender can be told by these on another host."""

_PLAIN = re.compile(rb"[A-Za-z0-9._:@+ -]{1,%d}" % LONGEST_ID)


def interpret(attributes: Sequence[Attribute], client: Client, rules: Rules, arrival: float) -> Outcome:
    """Reads the attributes of an Accounting-Request of `client` that arrived at `arrival` (epoch seconds).

    Of an attribute that may appear once, the first counts. If the packet names no address, or none that is allowed, it
    is an event without addresses: a lease or a later packet may say where the user is. A Stop is judged less strictly
    than what grants: its user (empty if unusable) and realm do not matter. No event names an address outside the
    client's networks.

    A packet that does not tell its user (an anonymous outer identity) leaves open whose the session is; a machine, a
    MAC address and a user of a realm that the client does not have are NOBODY. Both take addresses from others.
    """
    values = _Values(reversed(attributes))

    heard = arrival - _delay(values.number(_DELAY_TIME))
    kind = _KINDS.get(values.get(_STATUS_TYPE))
    if kind is None:
        if values.number(_STATUS_TYPE) not in _ON_OFF:
            return Outcome(None, NotBound.UNKNOWN_STATUS, ignored=values.ignored)
        at = _event_time(values.number(_EVENT_TIMESTAMP), heard, arrival)
        return Outcome(Restart(client.name, _nas(values), at, heard), ignored=values.ignored)
    session_id = values.get(_SESSION_ID)
    if not session_id:
        return Outcome(None, NotBound.NO_SESSION_ID, ignored=values.ignored)
    calling = values.get(_CALLING_STATION_ID)
    station = _mac(calling) if calling else ""
    told = rules.users.read(attributes, station, client.groups)
    user, no_user, realm, _ = told.named
    groups, not_bound = told.groups, None
    is_stop = kind is Kind.STOP
    if is_stop:
        groups = ()
    elif no_user is not None:
        user, not_bound = NOBODY if no_user.is_somebody_else else "", _NO_USER[no_user]
    elif client.realms is not None and realm not in client.realms:
        user, groups, not_bound = NOBODY, (), NotBound.REALM

    named, useless = rules.addresses.read(attributes)
    within = client.networks if is_stop else rules.bindable(client.networks)
    allowed = tuple([address for address in named if address in within])
    refused = tuple([address for address in named if address not in allowed]) if len(allowed) < len(named) else ()

    session_time = values.number(_SESSION_TIME)
    if session_time is not None and session_time <= LONGEST:
        started = heard - session_time
    else:
        started = 0.0 if is_stop else heard
    timeout = values.number(_SESSION_TIMEOUT)
    multi = values.get(_MULTI_SESSION_ID)
    nas = _nas(values) or plain(client.name.encode())
    event = Event(
        kind=kind,
        user=user,
        session=f"{nas}/{plain(session_id)}",
        addresses=allowed,
        at=_event_time(values.number(_EVENT_TIMESTAMP), heard, arrival),
        heard=heard,
        started=started,
        source=client.name,
        lease=rules.default_lease if client.lease is None else client.lease,
        longest=rules.longest,
        timeout=timeout if timeout is not None and timeout <= LONGEST else 0,
        mac=station,
        multi=plain(multi) if multi else "",
        within=client.networks,
        groups=groups,
    )
    beyond = len(allowed) - MAX_ADDRESSES if len(allowed) > MAX_ADDRESSES else 0
    return Outcome(event, not_bound, refused, values.ignored + told.ignored + useless, told.left_out, beyond)


def plain(octets: bytes) -> str:
    """Octets as text of letters, digits, spaces and `. _ : @ + - ~ %`, at most `LONGEST_ID` + 1 characters.

    What is left is percent-encoded; different octets give different text, in particular no slash.
    """
    if _PLAIN.fullmatch(octets):
        return octets.decode("ascii")
    text = quote(octets, safe=":@+ ")
    if len(text) <= LONGEST_ID:
        return text
    # One character longer than any text that is not cut: the two cannot be confused.
    return f"{text[: LONGEST_ID - 32]}~{hashlib.sha256(octets).hexdigest()[:32]}"


class _Values(dict[int, bytes]):
    """A packet's attributes by their types; made from the reversed list, of those of one type the first counts."""

    ignored = 0
    """Those that cannot be of their type."""

    def number(self, attribute: int) -> int | None:
        """The value of one whose value is an integer or a date."""
        octets = self.get(attribute)
        if octets is None:
            return None
        if len(octets) != 4:
            self.ignored += 1
            return None
        return int.from_bytes(octets)

    def address(self, attribute: int) -> str:
        """The value, as text, of one whose value is an address; empty if there is none."""
        octets = self.get(attribute)
        try:
            return "" if octets is None else _address(attribute, octets)
        except ValueError:
            self.ignored += 1
            return ""


def _delay(seconds: int | None) -> int:
    """Acct-Delay-Time (RFC 2866 §5.2): how long ago it happened; 0 for what cannot be."""
    return seconds if seconds is not None and seconds <= OLDEST else 0


def _event_time(stamp: int | None, heard: float, arrival: float) -> float:
    """RFC 2869 §5.3: Event-Timestamp is when it happened; Acct-Delay-Time is not subtracted from it."""
    return float(stamp) if stamp is not None and arrival - OLDEST <= stamp <= arrival + NEWEST else heard


def _nas(values: _Values) -> str:
    """The NAS as it names itself; empty if it does not (RFC 2866 §5.13 wants it to, Juniper does not)."""
    identifier = values.get(_NAS_IDENTIFIER)
    if identifier:
        return _identifier(identifier)
    return values.address(_NAS_IP_ADDRESS) or values.address(_NAS_IPV6_ADDRESS)


@lru_cache(maxsize=65536)
def _mac(station: bytes) -> str:
    return mac_of(station.decode("latin-1"))


# NASes are few, and each says its own in every packet.
_identifier = lru_cache(maxsize=4096)(plain)


@lru_cache(maxsize=4096)
def _address(attribute: int, octets: bytes) -> str:
    return str(_decode[attribute](octets))
