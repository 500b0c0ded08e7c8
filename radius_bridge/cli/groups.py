"""`group add`, `group remove`, `group show`: named members, so that one grant serves many people."""

import re
import time
from typing import Annotated

import typer

from radius_bridge.cli.common import ForOption, as_read, expiry_after, parse_who_argument, with_consul
from radius_bridge.cli.everywhere import everywhere
from radius_bridge.cli.output import USAGE, JsonOption, ending, fail, print_json, print_table, until, warn
from radius_bridge.cli.reach import YesOption, ask_if_much
from radius_bridge.policy.expiry import NEVER, format_expiry
from radius_bridge.policy.members import GroupRef, describe
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.feed import BRIDGE_GROUPS
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Op
from radius_bridge.registry.notices import announced
from radius_bridge.registry.reading import Groups, read_groups

app = typer.Typer(help="Groups of users, addresses and other groups.", no_args_is_help=True)

GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="The group's name, for example `staff`.")]
MemberArgument = Annotated[
    str,
    typer.Argument(metavar="MEMBER", help="A user name, `group:NAME`, an address or a network.", show_default=False),
]


@app.command()
def add(group: GroupArgument, member: MemberArgument, duration: ForOption = "", yes: YesOption = False) -> None:
    """Put MEMBER into GROUP. Asks first if that hits very many."""
    into, who, expires = _own_group(group), parse_who_argument(member), expiry_after(duration)
    ask_if_much(f"group add {into.name} {describe(who)}", who, yes=yes)

    async def work(consul: Consul, keys: Keys) -> None:
        await consul.transact(announced(keys, [Op.set(keys.group_member(into, who), format_expiry(expires))]))

    everywhere(work).tell(f"{describe(who)} is in group:{into.name}, {ending(expires)}")


@app.command()
def remove(group: GroupArgument, member: MemberArgument) -> None:
    """Take MEMBER out of GROUP."""
    out_of, who = _own_group(group), parse_who_argument(member)

    async def work(consul: Consul, keys: Keys) -> bool:
        key = keys.group_member(out_of, who)
        known = await consul.get(key) is not None
        await consul.transact(announced(keys, [Op.delete(key)]))
        return known

    results = everywhere(work)
    if not results.failed and not any(results.done.values()):
        fail(
            f"{describe(who)} is not in group:{out_of.name}; "
            f"`radius-bridge group show {out_of.name}` lists who is{as_read(member, who)}"
        )
    results.tell(f"{describe(who)} is no longer in group:{out_of.name}")


@app.command()
def show(
    group: Annotated[str, typer.Argument(metavar="[GROUP]", help="One group; `user.NAME` for a user's own.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List a group's members, or all groups of engineers."""
    name = group.removeprefix("group:")

    async def work(consul: Consul, keys: Keys) -> tuple[Groups, list[str]]:
        prefix = keys.group(GroupRef(name)) if name else keys.groups
        reading = read_groups(keys, (await consul.read(prefix)).entries)
        return reading.data, reading.problems

    groups, problems = with_consul(work)
    for problem in problems:
        warn(problem)
    if name and GroupRef(name) not in groups:
        fail(f"group:{name} has no members")
    members = [
        (ref, member, expires)
        for ref in sorted(groups, key=lambda ref: ref.name)
        if name or not ref.name.startswith(BRIDGE_GROUPS)
        for member, expires in sorted(groups[ref].items(), key=lambda item: describe(item[0]))
    ]
    if as_json:
        print_json(
            [
                {
                    "group": ref.name,
                    "member": describe(member),
                    "expires": None if expires == NEVER else expires,
                }
                for ref, member, expires in members
            ]
        )
        return
    now = time.time()
    rows = [[ref.name, describe(member), until(expires, now)] for ref, member, expires in members]
    print_table(["GROUP", "MEMBER", "UNTIL"], rows, "no groups")


def _own_group(text: str) -> GroupRef:
    name = text.removeprefix("group:")
    if not re.fullmatch(r"[A-Za-z0-9._@+-]{1,100}", name):
        fail(f"{text!r} is no group name: letters, digits and . _ @ + - only, at most 100", USAGE)
    if name.startswith(BRIDGE_GROUPS):
        fail(
            f"group:{name} is written by the bridge; grant the address itself, or use a group of your own",
            USAGE,
        )
    return GroupRef(name)
