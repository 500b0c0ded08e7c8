"""What to type after `script/demo --keep`."""

from tests.lab.demo.login import attributes
from tests.lab.site import ALICE, BOB, CONSUL, CONSUL_PORT, RADIUS, SERVER, SERVICE, SERVICE_PORT, Site


def playground(site: Site) -> str:
    """The text; writes the files that it names."""
    name = site.radius.name.removesuffix("-radius")
    inside = f"ip netns exec {name}"
    consul = f"CONSUL_HTTP_ADDR={CONSUL}:{CONSUL_PORT}"
    bridge = f"{inside}-radius env {consul} .venv/bin/radius-bridge"
    radclient = f"{inside}-client radclient -S {site.nas_secret_file}"
    for person in (ALICE, BOB):
        for status in ("Start", "Stop"):
            file = site.directory / f"{person.name}.{status.lower()}"
            file.write_text(attributes(person, status, f"{person.name}-by-hand") + "\n")
    return f"""\
It stays running, with everything as after the first step: alice is granted {SERVICE}, nobody is logged in.

[bold]alice knocks[/]
  {inside}-client bash -c 'head -1 </dev/tcp/{SERVER}/{SERVICE_PORT}'
[bold]alice logs in, alice logs out[/] (bob.start and bob.stop are there too)
  {radclient} -f {site.directory}/alice.start {RADIUS}:1813 acct
  {radclient} -f {site.directory}/alice.stop {RADIUS}:1813 acct
[bold]who is where, who may what[/]
  {bridge} who
  {bridge} tail
  {bridge} grants
  {bridge} grant bob {SERVICE} --for 10m
  {bridge} hosts
[bold]what the server enforces[/]
  {inside}-server .venv/bin/radius-bridge-agent status -c {site.directory}/agent.toml
  {inside}-server .venv/bin/radius-bridge-agent why {ALICE.address} {SERVICE} -c {site.directory}/agent.toml
  {inside}-server .venv/bin/radius-bridge-agent refused -c {site.directory}/agent.toml
  {inside}-server ipset list
  {inside}-server iptables-save
[bold]what Consul holds[/]
  {inside}-radius env {consul} consul kv get -recurse befw/
[bold]logs[/]
  {site.directory}/*.log
[bold]end it[/]
  script/demo --stop
"""
