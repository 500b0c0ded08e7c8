"""What can go wrong between us and Consul. None of these is ever an empty answer."""

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for a value that somebody else wrote: of another form, not UTF-8, nested without end."""


class NotRecorded(Exception):
    """An event could not be committed in time: no response to it may leave."""


class RegistryError(Exception):
    """Consul could not be reached, refused, failed, or answered what cannot be read.

    Whether a write happened is unknown, unless it is one of the errors below.
    """


class Conflict(RegistryError):
    """A transaction was refused because a check in it did not hold; nothing of it was written."""

    def __init__(self, message: str, failed: frozenset[int]) -> None:
        super().__init__(message)
        self.failed = failed
        """Positions of the operations whose check failed, in the order they were passed."""


class Forbidden(RegistryError):
    """The token lacks a right (an ACL of Consul said no); nothing was written."""

    def __init__(self, message: str, failed: frozenset[int] = frozenset()) -> None:
        super().__init__(message)
        self.failed = failed
        """Positions of the refused operations of a transaction; empty for everything else."""


class BadRecord(RegistryError):
    """A value in Consul is not what its key promises; the message names the key."""
