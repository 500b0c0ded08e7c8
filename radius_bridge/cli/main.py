"""`radius-bridge`: the commands of the bridge and of network engineers."""

import typer

from radius_bridge.cli import blocks, changes, decode, grants, groups, hosts, names, send, serve, tail, who

app = typer.Typer(
    help="Open a port for a person instead of an address.\n\n"
    "RADIUS accounting says who is behind which address; `grant` says who may reach which service; "
    "the agent on each host enforces both.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command()(serve.serve)
app.command("check-config")(serve.check_config)
app.command()(grants.grant)
app.command()(grants.revoke)
app.command("grants")(grants.list_grants)
app.command()(blocks.block)
app.command()(blocks.unblock)
app.command()(who.who)
app.command()(tail.tail)
app.command()(hosts.hosts)
app.command()(hosts.confirm)
app.command()(changes.notify)
app.command()(changes.publish)
app.add_typer(groups.app, name="group")
app.add_typer(names.app, name="names")
app.command()(send.send)
app.command()(decode.decode)
