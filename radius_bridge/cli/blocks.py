"""`block`, `allow` and their opposites: who may reach nothing, or everything, whatever was granted."""

from collections.abc import Collection
from typing import Annotated, NamedTuple

import typer

from radius_bridge.cli.common import ForOption, as_read, expiry_after, parse_who_argument
from radius_bridge.cli.everywhere import everywhere
from radius_bridge.cli.grants import DcOption, NodeOption, WhoArgument, check_scope, scope_of
from radius_bridge.cli.output import USAGE, ending, fail
from radius_bridge.cli.reach import YesOption, ask_if_much
from radius_bridge.policy.expiry import format_expiry, parse_duration
from radius_bridge.policy.members import Member, describe
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.keys import ALLOW, DENY, Keys, Scope
from radius_bridge.registry.kv import Op
from radius_bridge.registry.notices import announced

TimeoutOption = Annotated[
    str, typer.Option("--timeout", metavar="DURATION", help="How long to go on trying where Consul cannot be reached.")
]

ForAWhileOption = Annotated[
    str, typer.Option("--for", metavar="DURATION", help="How long, for example 45m, 8h; must be said.")
]


def block(
    who: WhoArgument,
    duration: ForOption = "",
    node: NodeOption = "",
    dc: DcOption = "",
    timeout: TimeoutOption = "1h",
    yes: YesOption = False,
) -> None:
    """Let WHO reach nothing on any protected host, in any datacenter; live connections end too.

    Tries again until every datacenter has it (Ctrl-C ends that). `radius-bridge block 192.0.2.7 --for 1h`. A segment is
    cut off from some hosts only with `--on NODE` or `--dc DC`. Asks first if that hits very many.
    """
    member, expires = parse_who_argument(who), expiry_after(duration)
    change = _Change(DENY, who, member, node, dc, _seconds(timeout))
    ask_if_much(f"block {describe(member)}", member, yes=yes, always_knows=False)
    change.write(expires, "is blocked")


def unblock(who: WhoArgument, node: NodeOption = "", dc: DcOption = "", timeout: TimeoutOption = "1h") -> None:
    """Take back what `block` did, in every datacenter and in exactly that scope."""
    change = _Change(DENY, who, parse_who_argument(who), node, dc, _seconds(timeout))
    change.take_back("is no longer blocked", "is not blocked")


def allow(
    who: WhoArgument,
    duration: ForAWhileOption = "",
    node: NodeOption = "",
    dc: DcOption = "",
    timeout: TimeoutOption = "1h",
    yes: YesOption = False,
) -> None:
    """Break-glass: let WHO reach everything on every protected host, blocked or not, until the time is over.

    `radius-bridge allow group:oncall --for 1h`; on some hosts only with `--on NODE` or `--dc DC`. Hosts log it. Asks
    first if that hits very many.
    """
    if not duration:
        fail("say for how long: they may reach every service then; for example --for 1h", USAGE)
    member, expires = parse_who_argument(who), expiry_after(duration)
    change = _Change(ALLOW, who, member, node, dc, _seconds(timeout))
    ask_if_much(f"allow {describe(member)}", member, yes=yes)
    change.write(expires, "may reach everything")


def disallow(who: WhoArgument, node: NodeOption = "", dc: DcOption = "", timeout: TimeoutOption = "1h") -> None:
    """Take back what `allow` did, in every datacenter and in exactly that scope."""
    change = _Change(ALLOW, who, parse_who_argument(who), node, dc, _seconds(timeout))
    change.take_back("may only reach what is granted", "is not allowed everything")


class _Change(NamedTuple):
    """One member of one override, in one scope."""

    override: str
    typed: str
    member: Member
    node: str
    dc: str
    patience: int
    """Seconds."""

    def write(self, expires: float, sentence: str) -> None:
        """Puts the member there, in every datacenter, and says so."""

        async def work(consul: Consul, keys: Keys) -> Scope:
            scope = await scope_of(consul, self.dc, self.node)
            key = keys.set_member(scope, self.override, self.member)
            await consul.transact(announced(keys, [Op.set(key, format_expiry(expires))]))
            return scope

        check_scope(self.dc, self.node)
        results = everywhere(work, patience=self.patience)
        where = _where(results.done.values())
        results.tell(f"{describe(self.member)} {sentence}{where}, {ending(expires)}")

    def take_back(self, sentence: str, otherwise: str) -> None:
        """Removes the member there, in every datacenter; fails, saying `otherwise`, if it was in none."""
        known = False

        async def work(consul: Consul, keys: Keys) -> Scope:
            nonlocal known
            scope = await scope_of(consul, self.dc, self.node)
            key = keys.set_member(scope, self.override, self.member)
            known |= await consul.get(key) is not None
            await consul.transact(announced(keys, [Op.delete(key)]))
            return scope

        check_scope(self.dc, self.node)
        results = everywhere(work, patience=self.patience)
        where = _where(results.done.values())
        if known or results.failed:
            results.tell(f"{describe(self.member)} {sentence}{where}")
        else:
            fail(f"{describe(self.member)} {otherwise}{where}{as_read(self.typed, self.member)}")


def _where(scopes: Collection[Scope]) -> str:
    scope = next(iter(scopes), Scope())
    return f" ({scope})" if scope != Scope() else ""


def _seconds(timeout: str) -> int:
    try:
        return parse_duration(timeout)
    except ValueError as error:
        fail(f"--timeout: {error}", USAGE)
