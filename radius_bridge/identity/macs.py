"""MAC addresses as networks spell them: what joins a session's Calling-Station-Id to a DHCP lease."""

import re

_SEPARATED = re.compile(
    r"[0-9A-F]{2}([:. -]?)[0-9A-F]{2}(?:\1[0-9A-F]{2}){4}"
    r"|[0-9A-F]{4}([.:-])[0-9A-F]{4}\2[0-9A-F]{4}"
    r"|[0-9A-F]{6}[:-][0-9A-F]{6}"
)
_SHORTEST, _LONGEST = 12, 64


def mac_of(text: str) -> str:
    """The MAC address that `text` begins with, as `00:1b:2c:3d:4e:5f`; empty if there is none.

    Any of the usual spellings: colons, hyphens, dots or blanks between pairs, dots, colons or hyphens between fours,
    a colon or a hyphen in the middle, or none, in any case; what follows (RFC 3580 §3.20 appends `:SSID` to a
    Called-Station-Id) is left out.
    """
    if len(text) < _SHORTEST:
        return ""
    match = _SEPARATED.match(text[:_LONGEST].upper())
    if match is None or text[match.end() : match.end() + 1].isalnum():
        return ""
    digits = re.sub(r"[^0-9A-F]", "", match[0]).lower()
    return ":".join(digits[place : place + 2] for place in range(0, 12, 2))
