"""Ends of things: the expiry values kept in Consul, and durations that people type.

An expiry is a whole number of seconds since the epoch; `NEVER` (−1) has no end. In Consul it is decimal text.
"""

import math
import re

NEVER = -1
"""The expiry of what does not end."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(?:\d+[smhdw])+")
_MAX = 1 << 53


def parse_expiry(value: bytes) -> int | None:
    """Reads an expiry from its value in Consul: epoch seconds, `NEVER` for any negative number.

    None means that the value is no expiry; such a link grants nothing.
    """
    text = value.strip()
    if not re.fullmatch(rb"-?\d{1,16}", text):
        return None
    number = int(text)
    if number < 0:
        return NEVER
    return number if number <= _MAX else None


def format_expiry(expires: float) -> bytes:
    """The value kept in Consul for an expiry (epoch seconds or `NEVER`); fractions are cut off, never added."""
    return b"%d" % (NEVER if expires < 0 else math.floor(expires))


def is_over(expires: float, now: float) -> bool:
    """True when what ends at `expires` (epoch seconds or `NEVER`) has ended at `now`."""
    return 0 <= expires <= now


def earliest(a: float, b: float) -> float:
    """The earlier of two expiries: what a chain of links is good for."""
    if a < 0:
        return b
    return a if b < 0 else min(a, b)


def latest(a: float, b: float) -> float:
    """The later of two expiries: what two ways to the same place are good for."""
    return NEVER if a < 0 or b < 0 else max(a, b)


def parse_duration(text: str) -> int:
    """Reads a duration such as `45s`, `30m`, `8h`, `1h30m`, `7d`, `2w` or plain seconds; gives seconds.

    Raises ValueError with the ways to write one.
    """
    cleaned = text.strip().lower()
    if cleaned.isascii() and cleaned.isdigit():
        seconds = int(cleaned)
    elif _DURATION.fullmatch(cleaned):
        seconds = sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)([smhdw])", cleaned))
    else:
        raise ValueError(f"{text!r} is no duration: write seconds (90) or units (45s, 30m, 8h, 1h30m, 7d)")
    if not 0 < seconds <= 10 * 365 * 86400:
        raise ValueError(f"{text!r} is out of range: a duration is more than nothing and at most 10 years")
    return seconds


def format_duration(seconds: float) -> str:
    """Writes seconds the way people do: the two largest units that matter, for example `1h30m`."""
    left = max(0, math.floor(seconds))
    parts = []
    for unit in "wdhms":
        count, left = divmod(left, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"
