"""`block`, `unblock`: who may reach nothing on any host, whatever was granted."""

from typing import Annotated

import typer

from radius_bridge.cli.common import ForOption, as_read, expiry_after, parse_who_argument
from radius_bridge.cli.everywhere import everywhere
from radius_bridge.cli.grants import WhoArgument
from radius_bridge.cli.output import USAGE, ending, fail
from radius_bridge.cli.reach import YesOption, ask_if_much
from radius_bridge.policy.expiry import format_expiry, parse_duration
from radius_bridge.policy.members import describe
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.keys import DENY, Keys, Scope
from radius_bridge.registry.kv import Op
from radius_bridge.registry.notices import announced

TimeoutOption = Annotated[
    str, typer.Option("--timeout", metavar="DURATION", help="How long to go on trying where Consul cannot be reached.")
]


def block(who: WhoArgument, duration: ForOption = "", timeout: TimeoutOption = "1h", yes: YesOption = False) -> None:
    """Let WHO reach nothing on any protected host, in any datacenter; live connections end too.

    Tries again until every datacenter has it (Ctrl-C ends that). `radius-bridge block 192.0.2.7 --for 1h`. Asks first
    if that hits very many.
    """
    member, expires, patience = parse_who_argument(who), expiry_after(duration), _seconds(timeout)
    ask_if_much(f"block {describe(member)}", member, yes=yes, always_knows=False)

    async def work(consul: Consul, keys: Keys) -> None:
        key = keys.set_member(Scope(), DENY, member)
        await consul.transact(announced(keys, [Op.set(key, format_expiry(expires))]))

    everywhere(work, patience=patience).tell(f"{describe(member)} is blocked, {ending(expires)}")


def unblock(who: WhoArgument, timeout: TimeoutOption = "1h") -> None:
    """Take back what `block` did, in every datacenter."""
    member, patience = parse_who_argument(who), _seconds(timeout)
    known = False

    async def work(consul: Consul, keys: Keys) -> None:
        nonlocal known
        key = keys.set_member(Scope(), DENY, member)
        known |= await consul.get(key) is not None
        await consul.transact(announced(keys, [Op.delete(key)]))

    results = everywhere(work, patience=patience)
    if known or results.failed:
        results.tell(f"{describe(member)} is no longer blocked")
    else:
        fail(f"{describe(member)} is not blocked{as_read(who, member)}")


def _seconds(timeout: str) -> int:
    try:
        return parse_duration(timeout)
    except ValueError as error:
        fail(f"--timeout: {error}", USAGE)
