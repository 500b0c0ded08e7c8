"""The attributes' names, numbers and types: dictionary files in FreeRADIUS' format, read once, at start.

The reader is our own: pyrad's leaves out what it does not support (extended attributes, vendor formats other than
1,1, TLVs in TLVs, prefixes of IPv4), silently, and those are a good part of what vendors send.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path as File
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


class Dictionary:
    """Attributes by name and by number; several files add up."""

    def __init__(self, *files: File) -> None:
        """Reads `files` and what they include, in order. Raises DictionaryError."""
        self.vendors: dict[int, Vendor] = {}
        self._by_name: dict[str, Definition] = {}
        self._by_path: dict[Path, Definition] = {}
        reader = _Reader(self.vendors, self._by_name, self._by_path)
        for file in files:
            reader.read(file)
        reader.name_values()

    def __getitem__(self, key: str | int) -> Definition:
        """The attribute of this name, or the standard one of this number. Raises KeyError."""
        return self._by_name[key] if isinstance(key, str) else self._by_path[key,]

    def __iter__(self) -> Iterator[Definition]:
        return iter(self._by_name.values())

    def find(self, path: Path) -> Definition | None:
        """The attribute at `path`; None if the dictionary has none."""
        return self._by_path.get(path)

    def vendor(self, number: int) -> Vendor:
        """The vendor of this number; one that the dictionary does not know lays out its attributes as most do."""
        return self.vendors.get(number) or Vendor("", number)

    def name(self, path: Path) -> str:
        """What the attribute at `path` is called; one that nobody named is `Attr-26.9.200`."""
        definition = self._by_path.get(path)
        return definition.name if definition is not None else f"Attr-{'.'.join(map(str, path))}"


def directory() -> File:
    """Where the dictionaries are that come with radius-bridge."""
    installed = File(__file__).parent.parent / "dictionaries"
    return installed if installed.is_dir() else File(__file__).parent.parent.parent / "dictionaries"


@cache
def standard() -> Dictionary:
    """The dictionary that comes with radius-bridge, read once."""
    return Dictionary(directory() / "dictionary")


def with_sites(directories: Iterable[File]) -> Dictionary:
    """The dictionary that comes with radius-bridge and every `dictionary*` file of `directories`.

    Raises DictionaryError.
    """
    files: list[File] = []
    for place in directories:
        try:
            found = sorted(file for file in place.iterdir() if file.name.startswith("dictionary") and file.is_file())
        except OSError as error:
            raise DictionaryError(f"{place}: cannot be read: {error.strerror}") from None
        if not found:
            raise DictionaryError(f"{place}: has no file whose name begins with dictionary")
        files += found
    return Dictionary(directory() / "dictionary", *files) if files else standard()


class _Problem(Exception):
    """What is wrong with a line."""


class _Reader:
    """Reads files into a dictionary's tables."""

    def __init__(
        self, vendors: dict[int, Vendor], by_name: dict[str, Definition], by_path: dict[Path, Definition]
    ) -> None:
        self._vendors = vendors
        self._vendor_numbers: dict[str, int] = {}
        self._by_name = by_name
        self._by_path = by_path
        self._read: set[File] = set()
        self._blocks: list[tuple[str, str, Path]] = []
        """The blocks we are in: how each ends, and the path that precedes the numbers in it."""
        self._values: list[tuple[str, str, str, str]] = []
        """Place, attribute, name and number of each VALUE: it may stand before its attribute."""

    def read(self, file: File) -> None:
        try:
            text = file.read_bytes().decode("utf-8")
            file = file.resolve()
        except OSError as error:
            raise DictionaryError(f"{file}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise DictionaryError(f"{file}: is not UTF-8 (octet {error.start})") from None
        if file in self._read:
            return  # included twice, or by itself: it adds nothing
        self._read.add(file)
        outside = len(self._blocks)
        number = 0
        for number, line in enumerate(text.split("\n"), 1):
            words = line.partition("#")[0].split()
            try:
                if words:
                    self._statement(file, number, words, outside)
            except _Problem as problem:
                raise DictionaryError(f"{file}:{number}: {problem}") from None
        if len(self._blocks) > outside:
            keyword, name, _ = self._blocks[-1]
            raise DictionaryError(f"{file}:{number}: {keyword} {name} is missing")

    def name_values(self) -> None:
        """Gives the attributes the names of their values, once all files are read."""
        for place, attribute, name, number in self._values:
            try:
                self._known(attribute).values[name] = _number(number)
            except _Problem as problem:
                raise DictionaryError(f"{place}: {problem}") from None

    def _statement(self, file: File, line: int, words: list[str], outside: int) -> None:
        match words:
            case ["$INCLUDE", name]:
                included = file.parent / name
                if not included.is_file():
                    raise _Problem(f"{included} is not there")
                self.read(included)
            case ["ATTRIBUTE", name, numbers, kind]:
                self._attribute(name, numbers, kind, "")
            case ["ATTRIBUTE", name, numbers, kind, flags]:
                self._attribute(name, numbers, kind, flags)
            case ["VALUE", attribute, name, number]:
                self._values.append((f"{file}:{line}", attribute, name, number))
            case ["VENDOR", name, number]:
                self._vendor(name, number, "format=1,1")
            case ["VENDOR", name, number, layout]:
                self._vendor(name, number, layout)
            case ["BEGIN-VENDOR", name]:
                self._blocks.append(("END-VENDOR", name, (VENDOR_SPECIFIC, self._vendor_number(name))))
            case ["BEGIN-VENDOR", name, where] if where.startswith("format="):
                parent = self._known(where.removeprefix("format="))
                if parent.type.name != "evs":
                    raise _Problem(f"{parent.name} has type {parent.type.name}; extended vendors are below evs")
                self._blocks.append(("END-VENDOR", name, (*parent.path, self._vendor_number(name))))
            case ["BEGIN-TLV", name]:
                parent = self._known(name)
                if parent.type.name != "tlv":
                    raise _Problem(f"{name} has type {parent.type.name}, not tlv")
                self._blocks.append(("END-TLV", name, parent.path))
            case [("END-VENDOR" | "END-TLV") as keyword, name]:
                if len(self._blocks) == outside or self._blocks[-1][:2] != (keyword, name):
                    raise _Problem(f"{keyword} {name} ends nothing that was begun here")
                self._blocks.pop()
            case _:
                raise _Problem(
                    f"{' '.join(words)!r} is none of $INCLUDE FILE, ATTRIBUTE NAME NUMBER TYPE [FLAGS], "
                    "VALUE ATTRIBUTE NAME NUMBER, VENDOR NAME NUMBER [format=T,L], BEGIN-VENDOR NAME, END-VENDOR NAME, "
                    "BEGIN-TLV NAME, END-TLV NAME"
                )

    def _attribute(self, name: str, numbers: str, kind: str, flags: str) -> None:
        prefix = self._blocks[-1][2] if self._blocks else ()
        path = (*prefix, *(_number(part) for part in numbers.split(".")))
        kind, _, size_text = kind.lower().partition("[")
        size = _number(size_text.removesuffix("]")) if size_text else None
        if kind not in TYPES:
            raise _Problem(f"{name} has type {kind}; known are {', '.join(TYPES)}")
        self._check(name, path)
        options = {flag.partition("=")[0] for flag in flags.split(",") if flag}
        if unknown := options - {"has_tag", "encrypt", "concat", "secret", "array", "virtual"}:
            raise _Problem(
                f"{name} has the flag {', '.join(sorted(unknown))}; known are has_tag, encrypt=N, concat, secret"
            )
        definition = Definition(
            name,
            path,
            TYPES["octets" if "array" in options else kind],
            size=size,
            tagged="has_tag" in options,
            concatenated="concat" in options,
            hidden=bool(options & {"encrypt", "secret"}),
        )
        known = self._by_name.get(name)
        if known is not None and known.path != path:
            raise _Problem(f"{name} is {_dotted(known.path)} already; choose another name for {_dotted(path)}")
        self._by_name[name] = self._by_path[path] = definition

    def _check(self, name: str, path: Path) -> None:
        """Raises _Problem if no packet can have an attribute at `path`."""
        for depth, number in enumerate(path):
            parent = path[:depth]
            if parent and not self._holds(parent):
                raise _Problem(f"{name}: {_dotted(parent)} is not known to hold other attributes")
            if self._is_vendor((*parent, number)):
                octets = 4
            elif depth == 2 and self._is_vendor(parent) and parent[-1] in self._vendors:
                octets = self._vendors[parent[-1]].type_octets
            else:
                octets = 1
            if not 0 <= number < 1 << 8 * octets:
                raise _Problem(f"{name}: {number} is not within 0..{(1 << 8 * octets) - 1}")

    def _holds(self, path: Path) -> bool:
        definition = self._by_path.get(path)
        return self._is_vendor(path) or (definition is not None and definition.type.name in STRUCTURES)

    def _is_vendor(self, path: Path) -> bool:
        parent = self._by_path.get(path[:-1]) if len(path) > 1 else None
        return parent is not None and parent.type.name in ("vsa", "evs")

    def _vendor(self, name: str, number: str, layout: str) -> None:
        parts = layout.removeprefix("format=").split(",")
        if not layout.startswith("format=") or parts[2:] not in ([], ["c"]):
            raise _Problem(f"{layout!r} is no layout: write format=1,1 or format=1,1,c")
        sizes = [_number(part) for part in parts[:2]]
        if len(sizes) != 2 or sizes[0] not in (1, 2, 4) or sizes[1] not in (0, 1, 2):
            raise _Problem(f"{layout!r}: types have 1, 2 or 4 octets, lengths 0, 1 or 2")
        vendor = Vendor(name, _number(number), sizes[0], sizes[1], len(parts) == 3)
        if not 0 < vendor.number < 1 << 32:
            raise _Problem(f"{vendor.number} is no vendor's number")
        self._vendors[vendor.number] = vendor
        self._vendor_numbers[name] = vendor.number

    def _vendor_number(self, name: str) -> int:
        try:
            return self._vendor_numbers[name]
        except KeyError:
            raise _Problem(f"the vendor {name} is not known: write VENDOR {name} NUMBER first") from None

    def _known(self, name: str) -> Definition:
        try:
            return self._by_name[name]
        except KeyError:
            raise _Problem(f"the attribute {name} is not known: define it first") from None


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise _Problem(f"{text!r} is no number") from None


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))
