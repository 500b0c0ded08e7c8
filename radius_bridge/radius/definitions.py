"""What a dictionary knows of an attribute: its name, its numbers, its type; and how a vendor lays out its own."""

from dataclasses import dataclass, field
from typing import NamedTuple

from radius_bridge.radius.values import TYPES, Type, Value

Path = tuple[int, ...]
"""An attribute's numbers from the outside in: (1,), in a vendor's space (26, 9, 1), extended (241, 3), in a TLV of
that (241, 5, 2), and a vendor's extended (241, 26, 9, 1)."""

VENDOR_SPECIFIC = 26
"""The type of vendors' attributes (RFC 2865 §5.26), also within extended ones (RFC 6929 §2.4)."""

STRUCTURES = frozenset({"tlv", "vsa", "evs", "extended", "long-extended"})
"""Types that hold other attributes."""


class DictionaryError(ValueError):
    """A dictionary cannot be used; `str()` names the file, the line and what is wrong."""


class Vendor(NamedTuple):
    """Who has a number of its own below attribute 26, and how it lays out its attributes."""

    name: str
    number: int
    type_octets: int = 1
    length_octets: int = 1
    """0: one attribute, which fills the rest."""
    continued: bool = False
    """True if a third octet tells by its highest bit that the value goes on in the next attribute."""

    @property
    def head(self) -> int:
        """Octets before each value."""
        return self.type_octets + self.length_octets + self.continued


@dataclass(frozen=True, slots=True)
class Definition:
    """One attribute of the dictionary."""

    name: str
    path: Path
    type: Type
    values: dict[str, int] = field(default_factory=dict)
    """Names of values, such as Start = 1."""
    size: int | None = None
    """How many octets a value has, if the dictionary says."""
    tagged: bool = False
    """True if a value may begin with a tag (RFC 2868 §3)."""
    concatenated: bool = False
    """True if a long value is spread over several attributes, one right behind the other (RFC 3579 §3.1)."""
    hidden: bool = False
    """True if the value is encrypted on the wire or is nobody's business: a password, a key."""

    @property
    def number(self) -> int:
        """The innermost of its numbers."""
        return self.path[-1]

    def decode(self, octets: bytes) -> Value:
        """What octets (without a tag) mean. Raises ValueError if they cannot be of this type."""
        if self.hidden:
            return octets
        if self.size is not None and len(octets) != self.size:
            raise ValueError(f"{self.name} has {self.size} octets, not {len(octets)}")
        if self.tagged and self.type.name == "integer":
            octets = b"\0" + octets  # RFC 2868 §3.1: the tag takes the place of the first of four octets
        return self.type.decode(octets)

    @property
    def has_tag_always(self) -> bool:
        """True if the first octet is a tag, whatever it is; 0 for none (RFC 2868 §3.1, §3.5)."""
        return self.tagged and (self.type.name == "integer" or self.hidden)

    def show(self, value: Value) -> str:
        """A decoded value for people, as `encode` reads it."""
        if isinstance(value, int):
            return next((name for name, number in self.values.items() if number == value), str(value))
        return TYPES["octets"].show(value) if self.hidden else self.type.show(value)

    def encode(self, text: str) -> bytes:
        """The octets, without a tag, of a value that somebody wrote. Raises ValueError, saying what is allowed."""
        if self.type.name in STRUCTURES:
            raise ValueError(f"{self.name} holds other attributes: write those")
        if self.hidden:
            return TYPES["octets"].encode(text)
        number = self.values.get(text)
        try:
            octets = self.type.encode(text if number is None else str(number))
        except ValueError as error:
            names = f", or one of {', '.join(self.values)}" if self.values else ""
            raise ValueError(f"{self.name} = {text!r}: {error}{names}") from None
        if self.size is not None and len(octets) != self.size:
            raise ValueError(f"{self.name} = {text!r}: write {self.size} octets")
        if self.tagged and self.type.name == "integer":
            if octets[0]:
                raise ValueError(f"{self.name} = {text!r}: write a number below {1 << 24}")
            return octets[1:]
        return octets
