"""`radius-bridge-agent render`: what would be programmed now, as the kernel's own tools read it. Nothing is touched."""

import time

from agent.dataplane import choose, nft_rules, rules
from agent.dataplane.iptables import Installed, install_text
from agent.dataplane.kinds import set_name
from agent.dataplane.nft import Installed as NftInstalled
from agent.dataplane.nft import install_text as nft_install_text
from agent.dataplane.nft import sets_text
from agent.dataplane.plan import Wanted
from agent.desired import Desired
from agent.notes import about_ports, local_range
from agent.services import Protected, find_in_consul, find_in_files
from agent.settings import AgentSettings
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import RegistryError

_FAMILY = {4: "inet", 6: "inet6"}


async def rendered(settings: AgentSettings, backend: str) -> str:
    """The sets and rules of this host's services; members are not shown.

    Raises DataplaneError, ValueError for a token that cannot be read.
    """
    found = [find_in_files(settings.services_dir)]
    notes = []
    try:
        async with Consul(settings.consul) as consul:
            found.append(find_in_consul(await consul.agent_services()))
    except RegistryError as error:
        notes.append(f"without the services of the Consul agent, which does not answer: {error}")
    notes += [f"ignored: {problem}" for look in found for problem in look.problems]
    services = Protected().update(found, time.time())
    notes += about_ports(services, local_range())
    failsafe = tuple(each.failsafe() for each in settings.failsafe)
    desired = Desired(services, {}, failsafe, settings.posture())
    name = choose.choose(backend)
    template = choose.site_templates(settings.templates).get(name)
    lines = [f"# {note}" for note in notes]
    if name == "nftables":
        lines += ["# nft -f", sets_text(nft_rules.declarations(desired.names)).rstrip()]
        lines.append(nft_install_text(nft_rules.render(desired, template), NftInstalled()).rstrip())
        return "\n".join(lines)
    lines += [
        f"# ipset create {set_name(kind, each)} {kind.type_name} family {_FAMILY[kind.version]} timeout 0"
        for each in desired.names
        for kind in Wanted({}, shuts_out=settings.posture().shuts_out(each)).kinds
    ]
    for version, program in ((4, "iptables-restore"), (6, "ip6tables-restore")):
        text = install_text(rules.render(desired, version, template), Installed())
        lines += [f"# {program} --noflush", text.rstrip()]
    return "\n".join(lines)
