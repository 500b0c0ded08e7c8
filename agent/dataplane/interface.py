"""The one interface of a dataplane, in the parts that those who use it need."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, Self

from agent.dataplane.change import Change
from agent.dataplane.compare import Difference, Listing
from agent.dataplane.events import Touched
from agent.desired import Desired
from radius_bridge.policy.members import Prefix


class Programming(Protocol):
    """What programs the kernel of this network namespace."""

    async def apply(
        self, desired: Desired, now: float, changed: Mapping[str, Collection[Prefix]] | None = None
    ) -> Change:
        """Makes the kernel enforce `desired` at `now` (epoch seconds). Repeating it changes nothing.

        Without `changed` everything is compared with what was programmed. With it, nothing but these members (by
        service, override and custom set) can differ from the `desired` of the last apply, which did not fail and had
        the same services: that costs the same for a set of ten and of a million.

        Raises DataplaneError naming all that failed; the rest was done, and what failed is built anew by the
        next apply, which must compare everything.
        """

    def distrust(self, sets: Collection[str]) -> None:
        """What is in these sets (the kernel's names) and in our chains is not believed: apply programs it anew.

        That apply must compare everything.
        """


class Enforcing(Programming, Protocol):
    """What keeps a policy up (agent.enforce)."""

    @property
    def name(self) -> str:
        """The backend: `ipset` or `nftables`."""

    def next_refresh(self, now: float) -> float:
        """When apply is due again although policy stays the same (epoch seconds, `now` at the earliest)."""

    def alarms(self) -> Sequence[str]:
        """What somebody must look after: a limit that is near, a site's template that the kernel refuses."""

    def entries(self) -> int:
        """Members that are programmed, in all sets: agent.dataplane.base.MOST_MEMBERS is what a host is made for."""

    @property
    def refused(self) -> Mapping[str, int]:
        """Attempts to connect that were refused (in observe mode: would have been), as last counted.

        By `refused:<short name of the service>`, `denied` and `closed`, since the agent or the rules began. They are
        counted whenever the rules are looked at.
        """

    async def count_refused(self) -> Mapping[str, int]:
        """Counts them now. Raises DataplaneError."""


class Inspecting(Programming, Protocol):
    """What tells of changes by hand, and puts back (agent.integrity)."""

    async def compare(self, desired: Desired, now: float, only: Collection[str] | None = None) -> Sequence[Difference]:
        """Where the kernel is not as desired; nothing, if it is. Raises DataplaneError.

        `only` says what to look at: sets (the kernel's names), and RULES for the rules; None: everything.
        """

    async def counts(self) -> Mapping[str, int] | None:
        """As `Dataplane.summary`, but cheap; None if the kernel cannot count, but tells who changes members.

        Raises DataplaneError.
        """

    def hear_nothing(self, while_many: Callable[[], AbstractContextManager[None]]) -> None:
        """`while_many` is entered whenever many members are written of which the kernel would tell one by one."""

    def is_mine(self, port: int) -> bool:
        """True for the netlink ports of this dataplane, and of the programs that it ran lately."""

    def concerned(self, touched: Touched) -> str | None:
        """What of ours may be another one after somebody touched this: RULES, a set, or nothing."""

    @property
    def hears_of_rules(self) -> bool:
        """True if the kernel tells of every change of the rules; else they must be looked at."""


class Dataplane(Enforcing, Inspecting, Protocol):
    """A backend: one writer at a time, held with `with`."""

    def __enter__(self) -> Self:
        """Takes the lock. Raises DataplaneError if another process has it, or without CAP_NET_ADMIN."""

    def __exit__(self, *_: object) -> None:
        """Lets go of it; what was programmed stays."""

    async def is_in_place(self) -> bool:
        """True if rules of ours are in the kernel where they belong, whoever wrote them, with whatever backend.

        Chains that were emptied are not. Raises DataplaneError.
        """

    async def summary(self) -> Mapping[str, int]:
        """Our sets in the kernel, each with the number of its entries. Raises DataplaneError."""

    async def listing(self) -> Listing:
        """What the kernel has of ours, in a canonical form. Raises DataplaneError."""

    async def uninstall(self) -> None:
        """Removes all that is ours, and nothing else. Raises DataplaneError."""
