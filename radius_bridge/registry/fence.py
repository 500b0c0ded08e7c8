"""The fence of a copy: who copies to a datacenter, kept there, because it knows no lock of the home's. Pure."""

from typing import Final

import msgspec

from radius_bridge.registry.datacenters import Datacenters
from radius_bridge.registry.errors import UNREADABLE

FENCE_SIZE: Final = 1024
"""Octets of the fence in a transaction, at most."""


class Fence(msgspec.Struct, frozen=True):
    """Who copies to a datacenter; its record is kept there."""

    home: str
    by: str
    """A name for one turn of one bridge."""
    lot: int
    """Transactions in this turn: no two values are the same."""
    open: bool
    """True if something was written that may not have been announced yet."""
    at: float
    """Its writer's clock (epoch seconds)."""


def nobody(datacenters: Datacenters) -> Fence:
    """A fence that nobody holds."""
    return Fence(datacenters.home, "", 0, open=False, at=0.0)


_fences: Final = msgspec.json.Decoder(Fence)


def read_fence(value: bytes) -> Fence | None:
    """The fence in a value; None if that is none."""
    try:
        return _fences.decode(value)
    except UNREADABLE:
        return None
