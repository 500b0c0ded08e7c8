"""The attributes' names, numbers and types: dictionary files in FreeRADIUS' format, read once, at start."""

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path as File

from radius_bridge.radius.definitions import Definition, DictionaryError, Path, Vendor
from radius_bridge.radius.dictionary_file import Reader


class Dictionary:
    """Attributes by name and by number; several files add up."""

    def __init__(self, *files: File) -> None:
        """Reads `files` and what they include, in order. Raises DictionaryError."""
        self.vendors: dict[int, Vendor] = {}
        self._by_name: dict[str, Definition] = {}
        self._by_path: dict[Path, Definition] = {}
        reader = Reader(self.vendors, self._by_name, self._by_path)
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
