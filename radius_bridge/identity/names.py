"""User names as they arrive, made into the one form that groups are named after and that grants are written with.

That form is `alice`, or `alice@corp.example.org` for a name with a realm: case-mapped (RFC 8265), the realm in one
notation. Two realms are two users unless the configuration says that they are one.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from precis_i18n import get_profile

from radius_bridge.identity.macs import mac_of

LONGEST = 253
"""Octets of a name: what a RADIUS attribute holds (RFC 2865 §5). Mapping may lengthen one; then it is refused."""

REMEMBERED = 65536
"""Names whose user is remembered: most come again, and those beyond ASCII cost far more than a look-up."""

BARE = 12
"""Digits of a MAC address; a name of so many characters may be one without separators."""

_SIMPLE = re.compile(rb"[A-Za-z0-9._-]{1,%d}" % LONGEST)
"""Without a realm, and with nothing to map but the case."""

_usernames = get_profile("UsernameCaseMapped")


class NameRefused(ValueError):
    """This name is never bound; `str()` says why."""


class NoUser(StrEnum):
    """Why a name is no user's."""

    NO_NAME = "no-name"
    BAD_NAME = "bad-name"
    NEVER_BOUND = "never-bound"
    MACHINE = "machine"
    MAC = "mac"

    @property
    def is_somebody_else(self) -> bool:
        """True if the name says that no user is there; False if it leaves open who is."""
        return self in {NoUser.MACHINE, NoUser.MAC}


class Step(NamedTuple):
    """One step from a name to a user, for people."""

    what: str
    result: str


class Named(NamedTuple):
    """Whom a name means."""

    user: str
    """As groups are named after him; empty if it is no user's name."""
    no_user: NoUser | None = None
    """Why it is none."""
    realm: str = ""
    """Its realm as it came, case-mapped; empty without one."""
    bare_mac: str = ""
    """If it is twelve hexadecimal digits, the MAC address that this may be: it is one if the station has it."""


class Naming(msgspec.Struct, frozen=True, omit_defaults=True):
    """The rules, case-mapped (`check` makes sure). Recorded in Consul, so that engineers' commands use the same."""

    realms: dict[str, str] = {}
    """What realms become; an empty text takes the realm off. Any other realm is kept."""
    slash_realms: bool = False
    """True if `Realm/user` names a realm too, besides `user@realm` and `DOMAIN\\user`."""
    never: tuple[str, ...] = ("anonymous",)
    """Names never bound: `name` in any realm, `name@realm` in that one."""
    bind_machines: bool = False
    """True if machines are users too, by the names `pc$` and `pc$@realm`; else they are nobody."""

    @classmethod
    def check(cls, realms: dict[str, str], never: tuple[str, ...], **flags: bool) -> "Naming":
        """Rules as somebody wrote them, made ready. Raises ValueError, saying what is wrong."""
        mapped: dict[str, str] = {}
        for written, into in realms.items():
            realm = _written_realm(written)
            if not realm:
                raise ValueError("names without a realm cannot get one: write the realm that names have")
            if realm in mapped:
                raise ValueError(f"{written!r} is there twice, but for its case")
            mapped[realm] = _written_realm(into)
        for realm, into in mapped.items():
            if mapped.get(into, into) != into:
                raise ValueError(f"{realm!r} becomes {into!r}, and that {mapped[into]!r}: write the last one at once")
        return cls(realms=mapped, never=tuple(_written_name(name) for name in never), **flags)


class Names:
    """Reads names by the rules."""

    def __init__(self, naming: Naming) -> None:
        self.naming = naming
        self._read = lru_cache(maxsize=REMEMBERED)(self._read_quickly)

    def read(self, raw: bytes, station: str = "") -> Named:
        """Whom the octets of a User-Name, or of what stands in for it, mean.

        `station` is the MAC address of the one that they are said of (`identity.macs`), empty if unknown.
        """
        named = self._read(raw)
        if named.bare_mac and named.bare_mac == station:
            return _MAC
        return named

    def explain(self, raw: bytes, station: str = "") -> tuple[Named, list[Step]]:
        """The same, with the steps that led there."""
        steps: list[Step] = []
        named = self._read_anew(raw, lambda what, result: steps.append(Step(what, result)))
        if named.bare_mac and named.bare_mac == station:
            steps.append(Step("MAC address", "that of the station itself"))
            return _MAC, steps
        return named, steps

    def typed(self, text: str) -> str:
        """The user that an engineer means by `text`. Raises NameRefused for one that is never bound."""
        named, steps = self.explain(text.encode("utf-8", "surrogateescape"))
        if named.no_user is not None:
            raise NameRefused(_REFUSALS.get(named.no_user) or steps[-1].result)
        return named.user

    def _read_quickly(self, raw: bytes) -> Named:
        """As `_read_anew`, in a third of the time for the names that most people have."""
        if _SIMPLE.fullmatch(raw):
            name = raw.decode("ascii").lower()
            if name not in self.naming.never and not mac_of(name):
                return Named(name)
        return self._read_anew(raw)

    def _read_anew(self, raw: bytes, step: Callable[[str, str], Any] = lambda what, result: None) -> Named:
        if raw.endswith(b"\0"):
            # RFC 2865 §5: text is not ended by a NUL. Some NASes send C's strings all the same; two are no name.
            raw = raw[:-1]
            step("NUL at its end", "taken off")
        try:
            text = _text(raw)
            local, realm, notation = _split(text, self.naming.slash_realms)
            if notation:
                step("notation", notation)
            before, realm = realm, case_mapped(realm)
            if not local:
                # RFC 7542 §2.4: for privacy, nothing before the @.
                step("user", "nobody: an empty name stands for anonymous")
                return Named("", NoUser.NEVER_BOUND, realm)
            mapped = case_mapped(local)
            if _separators(mapped + realm) != _separators(local + before):
                raise NameRefused("has a wide form of @, \\ or /: it could be read in two ways")
            step("case-mapped", f"{mapped}@{realm}" if realm else mapped)
            mac = mac_of(mapped)
            if mac and len(mapped) != BARE and _is_all_mac(mapped):
                step("MAC address", mac)
                return _MAC
            if mapped in self.naming.never or f"{mapped}@{realm}" in self.naming.never:
                step("never bound", "it is on the list")
                return Named("", NoUser.NEVER_BOUND, realm)
            kept = self.naming.realms.get(realm, realm)
            if realm:
                step("realm", "kept" if kept == realm else f"becomes {kept}" if kept else "taken off")
            user = f"{mapped}@{kept}" if kept else mapped
            if len(user.encode()) > LONGEST:
                raise NameRefused(f"is longer than {LONGEST} octets")
        except NameRefused as error:
            step("refused", str(error))
            return Named("", NoUser.BAD_NAME if raw.strip() else NoUser.NO_NAME)
        if mapped.endswith("$") and not self.naming.bind_machines:
            step("machine", "machines are nobody")
            return Named("", NoUser.MACHINE, realm)
        return Named(user, None, realm, mac if len(mapped) == BARE else "")


def case_mapped(text: str) -> str:
    """RFC 8265 §3.3, UsernameCaseMapped, of each part between single spaces (§3.1). Raises NameRefused."""
    if text.isascii() and text.isprintable() and " " not in text:
        return text.lower()  # which is all that the profile does to such text, at a tenth of the time
    try:
        return " ".join([_usernames.enforce(part) for part in text.split(" ")])
    except UnicodeEncodeError as error:
        reason = str(error.reason).removeprefix("DISALLOWED/")
        where = f"{text!r}" if reason == "empty" else f"{text!r} at {str(error.object)[error.start : error.end]!r}"
        raise NameRefused(f"{where} is no user name of RFC 8265: {reason}") from None


_MAC = Named("", NoUser.MAC)

_REFUSALS = {
    NoUser.NEVER_BOUND: "is never bound, and reaches nothing",
    NoUser.MACHINE: "is a machine; machines are bound to no user ([names] machines)",
    NoUser.MAC: "is a MAC address; those are bound to no user",
}


def _text(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise NameRefused("is not UTF-8") from None
    if not text.strip():
        raise NameRefused("is empty")
    if not text.isprintable():
        raise NameRefused("has characters that cannot be printed")
    return text


def _is_all_mac(text: str) -> bool:
    """True if nothing follows the MAC address that `text` begins with."""
    return sum(char.isalnum() for char in text) == BARE and text[-1].isalnum()


def _separators(text: str) -> int:
    return text.count("@") + text.count("\\") + text.count("/")


def _split(text: str, slash_realms: bool) -> tuple[str, str, str]:
    """The name, its realm, and how that was written. Raises NameRefused if it could be read in two ways.

    What stands before or behind a second separator decides who checked the password, and so who could take whose name.
    """
    is_host = text[:5].lower() == "host/"
    if is_host:
        # Windows' computers: host/pc.corp.example.org is pc$ of corp.example.org (and CORP\pc$).
        account, at, realm = text[5:].partition("@")
        name, _, domain = account.partition(".")
        if not name or "@" in realm or "\\" in text or "/" in text[5:] or (at and not realm):
            raise NameRefused("is no machine's name: that is host/pc.corp.example.org")
        return f"{name}$", realm or domain, "host/pc.domain"
    found = _SEPARATORS[slash_realms].findall(text)
    if not found:
        return text, "", ""
    if len(found) > 1:
        raise NameRefused(f"has {' and '.join(found)}: it could be a name in either of two realms")
    before, separator, after = text.partition(found[0])
    local, realm, notation = (before, after, "user@realm") if separator == "@" else (after, before, _PREFIX[separator])
    if not realm or (not local and separator != "@"):
        raise NameRefused(f"has nothing {'behind' if separator == '@' or not local else 'before'} its {separator}")
    return local, realm, notation


_PREFIX = {"\\": "DOMAIN\\user", "/": "Realm/user"}
_SEPARATORS = {False: re.compile(r"[@\\]"), True: re.compile(r"[@\\/]")}


def _written_realm(text: str) -> str:
    if set(text) & set("@\\/"):
        raise ValueError(f"{text!r}: write the realm alone, such as corp.example.org or CORP")
    return _written(text)


def _written_name(text: str) -> str:
    local, at, realm = text.partition("@")
    if not local or "\\" in text or "@" in realm or (at and not realm):
        raise ValueError(f"{text!r}: write name, for any realm, or name@realm")
    return _written(local) + at + _written(realm)


def _written(text: str) -> str:
    try:
        return case_mapped(text)
    except NameRefused as error:
        raise ValueError(str(error)) from None
