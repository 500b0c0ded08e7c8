"""User names as they arrive in User-Name (RFC 2865 §5.1), made into the one form that groups are named after."""

import unicodedata


class NameRefused(ValueError):
    """This User-Name is never bound; `str()` says why."""


def user_name(raw: bytes) -> str:
    """The user behind a User-Name attribute's octets.

    Raises NameRefused for what nobody could name in a grant: empty, not UTF-8, control or invisible characters.
    """
    try:
        name = unicodedata.normalize("NFC", raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise NameRefused("not UTF-8") from None
    if not name.strip():
        raise NameRefused("empty")
    if not name.isprintable():
        raise NameRefused("has characters that cannot be printed")
    return name


def realm_of(name: str) -> str:
    """The realm of `user@realm` in lower case, without the @; empty if there is none (RFC 7542 §2.2)."""
    _, at, realm = name.rpartition("@")
    return realm.lower() if at else ""
