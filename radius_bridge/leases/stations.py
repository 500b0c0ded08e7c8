"""Whose lease it is: MAC addresses (as `identity.macs` writes them) out of hardware addresses and DUIDs. Pure."""

import re

_HARDWARE = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}")
_DUID = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2})*")


def mac_of_hardware(text: str) -> str:
    """The MAC address that a DHCP server writes as hardware address; empty for one of another length (InfiniBand)."""
    return text.lower() if _HARDWARE.fullmatch(text) else ""


def mac_of_duid(text: str) -> str:
    """The MAC address inside a DUID (`00:03:00:01:…`); empty if there is none.

    DUID-LLT and DUID-LL of hardware type 1 have one (RFC 8415 §11.2, §11.4). It is that of one of the station's
    interfaces, which need not be the one that asked.
    """
    if not _DUID.fullmatch(text):
        return ""
    octets = bytes.fromhex(text.replace(":", ""))
    match int.from_bytes(octets[:2]), int.from_bytes(octets[2:4]), len(octets):
        case (1, 1, 14) | (3, 1, 10):
            return octets[-6:].hex(":")
    return ""
