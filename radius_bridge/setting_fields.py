"""What the values of a configuration are made of: networks, endpoints, durations; errors say what to write."""

import ipaddress
import re
from typing import Annotated, Any, TypeVar

from pydantic import PlainValidator

from radius_bridge.identity.names import case_mapped
from radius_bridge.policy.expiry import parse_duration
from radius_bridge.policy.members import Prefix, parse_prefix

_T = TypeVar("_T")

Endpoint = tuple[str, int]
"""A numeric address and a port."""


def _prefix(value: Any) -> Prefix:
    if not isinstance(value, str):
        raise ValueError('write an address or a network as text, such as "192.0.2.1" or "2001:db8::/32"')
    try:
        return parse_prefix(value)
    except ValueError as error:
        raise ValueError(f"write an address or a network, such as 192.0.2.1 or 192.0.2.0/24 ({error})") from None


def _endpoint(value: Any) -> Endpoint:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):(\d{1,5})", value) if isinstance(value, str) else None
    if match is not None and int(match[3]) <= 65535:
        try:
            address = ipaddress.IPv6Address(match[1]) if match[1] else ipaddress.IPv4Address(match[2])
        except ValueError:
            pass
        else:
            return str(address), int(match[3])
    raise ValueError("write a numeric address and a port, such as 0.0.0.0:1813 or [::]:1813")


def _seconds(value: Any) -> int:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError("write seconds (3600) or a duration (8h)")
    return parse_duration(str(value))


def _realm(value: Any) -> str:
    if not isinstance(value, str) or "@" in value or value != value.strip():
        raise ValueError('write what follows the @ in user names, without it; "" stands for names that have none')
    return case_mapped(value)


def _certificate_name(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"(?=.{1,253}$)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", value):
        return value.lower()
    raise ValueError("write a DNS name as the certificate has it, such as proxy.example.org")


def _fingerprint(value: Any) -> bytes:
    digits = value.replace(":", "") if isinstance(value, str) else ""
    if re.fullmatch(r"[0-9A-Fa-f]{64}", digits):
        return bytes.fromhex(digits)
    raise ValueError("write 64 hexadecimal digits, as `openssl x509 -noout -fingerprint -sha256` prints them")


PrefixField = Annotated[Prefix, PlainValidator(_prefix)]
EndpointField = Annotated[Endpoint, PlainValidator(_endpoint)]
DurationField = Annotated[int, PlainValidator(_seconds)]
CertificateNameField = Annotated[str, PlainValidator(_certificate_name)]
FingerprintField = Annotated[bytes, PlainValidator(_fingerprint)]
RealmField = Annotated[str, PlainValidator(_realm)]


def not_empty(value: tuple[_T, ...]) -> tuple[_T, ...]:
    """A list with something in it. Raises ValueError."""
    if not value:
        raise ValueError("write at least one")
    return value
