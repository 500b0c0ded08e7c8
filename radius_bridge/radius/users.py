"""Which attributes of a packet name the user, and which groups they put him into: configuration, made ready. Pure."""

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cache

from msgspec import Struct

from radius_bridge.identity.names import Named, Names, Naming, NoUser, Step
from radius_bridge.radius.addresses import Source
from radius_bridge.radius.attributes import unpack
from radius_bridge.radius.definitions import STRUCTURES, VENDOR_SPECIFIC, Definition, Path
from radius_bridge.radius.dictionary import Dictionary, standard
from radius_bridge.radius.packet import Attribute

MOST_GROUPS = 3
"""Groups of one session: each is one more operation of the transaction that records a login."""

USER_NAME = Source("User-Name")
_USER_NAME = standard()[USER_NAME.attribute].number

_TEXTS = frozenset({"string", "octets"})
"""Types whose octets are text if they are UTF-8: Class and Chargeable-User-Identity are octets (RFC 2865 §5.25)."""


@dataclass(frozen=True, slots=True)
class GroupRule:
    """An attribute that puts whoever is behind the packet's addresses into a group."""

    attribute: str
    """Its name in the dictionary."""
    group: str
    """The group's name: `radius.staff`."""
    value: str | None = None
    """What the attribute says, exactly, as `radius-bridge decode` shows it; or a pattern."""
    pattern: re.Pattern[str] | None = None
    """What is to be found in what it says."""

    def matches(self, text: str) -> bool:
        """True if an attribute that says `text` puts somebody into the group."""
        return text == self.value if self.pattern is None else self.pattern.search(text) is not None

    def __str__(self) -> str:
        told = f"= {self.value}" if self.pattern is None else f"~ {self.pattern.pattern}"
        return f"{self.attribute} {told}"


class Told(Struct, frozen=True, gc=False):
    """What a packet's attributes say about its user."""

    named: Named
    groups: tuple[str, ...] = ()
    left_out: int = 0
    """Groups beyond `MOST_GROUPS`."""
    ignored: int = 0
    """Attributes that could not be taken apart."""


_NAMELESS = Told(Named("", NoUser.NO_NAME))


class Users:
    """The sources of names, in their order, and the rules of groups."""

    def __init__(
        self, naming: Naming, sources: Sequence[Source], rules: Sequence[GroupRule], dictionary: Dictionary
    ) -> None:
        """Raises ValueError for a source or a rule that no packet could fulfil."""
        self.names = Names(naming)
        self._dictionary = dictionary
        self._sources = [(_definition(source.attribute, dictionary).path, source) for source in sources]
        for source in sources:
            kind = dictionary[source.attribute].type.name
            if kind not in _TEXTS:
                raise ValueError(f"{source.attribute} has type {kind}: names are in {' and '.join(sorted(_TEXTS))}")
            if source.pattern is not None and source.pattern.groups < 1:
                raise ValueError(f"{source.attribute}: a pattern needs a group for the name")
        self._rules = [(_definition(rule.attribute, dictionary), rule) for rule in rules]
        wanted = {path for path, _ in self._sources} | {definition.path for definition, _ in self._rules}
        self._outermost = frozenset(path[0] for path in wanted)
        self._vendors = {path[1].to_bytes(4) for path in wanted if path[0] == VENDOR_SPECIFIC}
        self._wanted = wanted
        plain = [path for path in wanted if len(path) == 1]
        self._plain = {path[0]: path for path in plain if not _is_tagged(dictionary.find(path))}
        self._only_user_name = not rules and list(sources) == [USER_NAME]

    def read(self, attributes: Sequence[Attribute], station: str, allowed: Container[str] | None = None) -> Told:
        """What a packet's attributes say of the station with the MAC address `station` ("": unknown).

        `allowed` are the only groups that can come of it; None: all of the rules.
        """
        if self._only_user_name:
            for number, octets in attributes:
                if number == _USER_NAME:
                    return Told(self.names.read(octets, station))
            return _NAMELESS
        values, ignored = self._values(attributes)
        named = self._name(values, station)
        groups = [rule.group for rule in self._matching(values) if allowed is None or rule.group in allowed]
        groups = list(dict.fromkeys(groups))
        return Told(named, tuple(groups[:MOST_GROUPS]), max(0, len(groups) - MOST_GROUPS), ignored)

    def explain(self, attributes: Sequence[Attribute], station: str) -> tuple[Told, list[Step], list[GroupRule]]:
        """The same, with the steps that led there and the rules that match."""
        values, _ = self._values(attributes)
        steps: list[Step] = []
        self._name(values, station, steps)
        return self.read(attributes, station), steps, self._matching(values)

    def _values(self, attributes: Sequence[Attribute]) -> tuple[dict[Path, list[bytes]], int]:
        """The values of what is wanted, by path, in the order of the packet."""
        values: dict[Path, list[bytes]] = {}
        rest: list[Attribute] = []
        ignored = 0
        for attribute in attributes:
            number, octets = attribute
            if number not in self._outermost:
                continue
            path = self._plain.get(number)
            if path is not None:
                values.setdefault(path, []).append(octets)
            elif number != VENDOR_SPECIFIC or octets[:4] in self._vendors:
                rest.append(attribute)
        for leaf in unpack(rest, self._dictionary) if rest else ():
            if leaf.malformed is not None:
                ignored += 1
            elif leaf.path in self._wanted:
                values.setdefault(leaf.path, []).append(leaf.split_tag()[1])
        return values, ignored

    def _name(self, values: dict[Path, list[bytes]], station: str, steps: list[Step] | None = None) -> Named:
        """The first source that names a user; if none does, why the first that says anything does not."""
        failed: Named | None = None
        for path, source in self._sources:
            # Of an attribute that may appear once, the first counts; Class may repeat (RFC 2865 §5.44).
            for octets in values.get(path, ())[: 1 if path == (_USER_NAME,) else None]:
                found = octets if source.pattern is None else _search(source.pattern, octets)
                if steps is not None:
                    shown = (found if found is not None else octets).decode("utf-8", "backslashreplace")
                    steps.append(Step(source.attribute, shown if found is not None else f"{shown} (no match)"))
                if found is None:
                    continue
                if steps is None:
                    named = self.names.read(found, station)
                else:
                    named, more = self.names.explain(found, station)
                    steps += more
                if named.no_user is None:
                    return named
                failed = failed or named
        return failed or _NAMELESS.named

    def _matching(self, values: dict[Path, list[bytes]]) -> list[GroupRule]:
        return [
            rule
            for definition, rule in self._rules
            if any(
                text is not None and rule.matches(text)
                for text in (_show(definition, octets) for octets in values.get(definition.path, ()))
            )
        ]


def _definition(name: str, dictionary: Dictionary) -> Definition:
    try:
        definition = dictionary[name]
    except KeyError:
        raise ValueError(f"{name}: the dictionaries know no attribute of this name") from None
    if definition.type.name in STRUCTURES or definition.hidden:
        raise ValueError(f"{name} cannot be read as text: it holds other attributes, or is a secret")
    return definition


def _is_tagged(definition: Definition | None) -> bool:
    return definition is not None and (definition.tagged or definition.concatenated)


def _search(pattern: re.Pattern[str], octets: bytes) -> bytes | None:
    try:
        match = pattern.search(octets.decode("utf-8"))
    except UnicodeDecodeError:
        return None
    return None if match is None or match[1] is None else match[1].encode()


def _show(definition: Definition, octets: bytes) -> str | None:
    """An attribute's value as text; None if it cannot be of its type, or is no text."""
    try:
        if definition.type.name in _TEXTS:
            return octets.decode("utf-8")
        return definition.show(definition.decode(octets))
    except ValueError:
        return None


@cache
def default() -> Users:
    """What holds if nothing is configured: User-Name, and no groups."""
    return Users(Naming(), (USER_NAME,), (), standard())
