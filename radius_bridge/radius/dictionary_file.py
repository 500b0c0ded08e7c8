"""Dictionary files in FreeRADIUS' format.

The reader is our own: pyrad's leaves out what it does not support (extended attributes, vendor formats other than
1,1, TLVs in TLVs, prefixes of IPv4), silently, and those are a good part of what vendors send.
"""

from pathlib import Path as File

from radius_bridge.radius.definitions import STRUCTURES, VENDOR_SPECIFIC, Definition, DictionaryError, Path, Vendor
from radius_bridge.radius.values import TYPES


class _Problem(Exception):
    """What is wrong with a line."""


class Reader:
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
