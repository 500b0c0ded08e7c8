"""`grant`, `revoke`, `grants`: who may reach which service, and until when."""

import re
import time
from typing import Annotated, Any

import typer

from radius_bridge.cli.common import ForOption, as_read, expiry_after, parse_who_argument, with_consul
from radius_bridge.cli.everywhere import everywhere
from radius_bridge.cli.output import USAGE, JsonOption, ending, fail, print_json, print_table, until, warn
from radius_bridge.cli.reach import YesOption, ask_if_much
from radius_bridge.policy.expiry import NEVER, format_expiry
from radius_bridge.policy.members import describe
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.keys import GrantKey, Keys, Scope
from radius_bridge.registry.kv import Op
from radius_bridge.registry.notices import announced
from radius_bridge.registry.reading import read_grants

WhoArgument = Annotated[
    str,
    typer.Argument(metavar="WHO", help="A user name, `group:NAME`, an address or a network.", show_default=False),
]
ServiceArgument = Annotated[
    str, typer.Argument(metavar="SERVICE", help="For example `ssh_tcp_22`: name, protocol, first port.")
]
NodeOption = Annotated[str, typer.Option("--on", metavar="NODE", help="Only on this node.")]
DcOption = Annotated[
    str,
    typer.Option("--dc", metavar="DC", help="Only in this datacenter; with --on, the node's (else Consul's own)."),
]


def grant(
    who: WhoArgument,
    service: ServiceArgument,
    duration: ForOption = "",
    node: NodeOption = "",
    dc: DcOption = "",
    yes: YesOption = False,
) -> None:
    """Let WHO reach SERVICE: everywhere, in one datacenter (--dc) or on one node (--on).

    `radius-bridge grant alice ssh_tcp_22 --for 8h`. Asks first if that hits very many.
    """
    member, name, expires = parse_who_argument(who), _service(service), expiry_after(duration)
    check_scope(dc, node)
    ask_if_much(f"grant {describe(member)} {name}", member, yes=yes, service=name)

    async def work(consul: Consul, keys: Keys) -> Scope:
        scope = await scope_of(consul, dc, node)
        await consul.transact(announced(keys, [Op.set(keys.grant(scope, name, member), format_expiry(expires))]))
        return scope

    results = everywhere(work)
    scope = next(iter(results.done.values()), Scope())
    results.tell(f"{describe(member)} may reach {name} ({scope}), {ending(expires)}")


def revoke(who: WhoArgument, service: ServiceArgument, node: NodeOption = "", dc: DcOption = "") -> None:
    """Take back what `grant` gave, in exactly that scope."""
    member, name = parse_who_argument(who), _service(service)
    check_scope(dc, node)

    async def work(consul: Consul, keys: Keys) -> tuple[Scope, bool]:
        scope = await scope_of(consul, dc, node)
        key = keys.grant(scope, name, member)
        known = await consul.get(key) is not None
        await consul.transact(announced(keys, [Op.delete(key)]))
        return scope, known

    results = everywhere(work)
    scope = next((scope for scope, _ in results.done.values()), Scope())
    if not results.failed and not any(known for _, known in results.done.values()):
        fail(
            f"{describe(member)} has no grant of {name} ({scope}); "
            f"`radius-bridge grants {name}` lists them{as_read(who, member)}"
        )
    results.tell(f"{describe(member)} may no longer reach {name} ({scope})")


def list_grants(
    service: Annotated[str, typer.Argument(metavar="[SERVICE]", help="Only grants of this service.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List who may reach what, where, and until when."""
    name = _service(service) if service else ""

    async def work(consul: Consul, keys: Keys) -> tuple[list[tuple[GrantKey, float]], list[str]]:
        reading = read_grants(keys, (await consul.read(keys.services)).entries)
        return sorted(reading.data.items(), key=lambda item: (item[0].service, str(item[0]))), reading.problems

    found, problems = with_consul(work)
    found = [(grant, expires) for grant, expires in found if name in {"", grant.service}]
    for problem in problems:
        warn(problem)
    now = time.time()
    if as_json:
        print_json([_as_json(grant, expires) for grant, expires in found])
        return
    rows = [[describe(g.member), g.service, str(g.scope), until(expires, now)] for g, expires in found]
    print_table(["WHO", "SERVICE", "WHERE", "UNTIL"], rows, "no grants")


def _as_json(grant: GrantKey, expires: float) -> dict[str, Any]:
    return {
        "who": describe(grant.member),
        "service": grant.service,
        "dc": grant.scope.dc or None,
        "node": grant.scope.node or None,
        "expires": None if expires == NEVER else expires,
    }


def _service(text: str) -> str:
    name = text.lower()
    if not re.fullmatch(r"[a-z0-9._-]+_(tcp|udp)_\d{1,5}", name):
        fail(f"{text!r} is no service name: write name_protocol_port, such as ssh_tcp_22", USAGE)
    return name


def check_scope(dc: str, node: str) -> None:
    """Ends the command if --dc or --on are no names."""
    for option, value in (("--dc", dc), ("--on", node)):
        if value and not re.fullmatch(r"[A-Za-z0-9_-]+", value):
            fail(f"{option}: {value!r}: letters, digits and - _ only (a node: up to its first dot)", USAGE)


async def scope_of(consul: Consul, dc: str, node: str) -> Scope:
    """What --dc and --on mean. Raises RegistryError."""
    if node and not dc:
        _, dc = await consul.agent_self()
    return Scope(dc, node.lower())
