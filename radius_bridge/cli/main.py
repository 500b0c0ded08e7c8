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

_MAY, _IS, _RUN, _TRY = "Who may what", "Who is where, and what hosts do", "Running the bridge", "Trying things out"

app.command(rich_help_panel=_MAY)(grants.grant)
app.command(rich_help_panel=_MAY)(grants.revoke)
app.command("grants", rich_help_panel=_MAY)(grants.list_grants)
app.add_typer(groups.app, name="group", rich_help_panel=_MAY)
app.command(rich_help_panel=_MAY)(blocks.block)
app.command(rich_help_panel=_MAY)(blocks.unblock)
app.command(rich_help_panel=_MAY)(blocks.allow)
app.command(rich_help_panel=_MAY)(blocks.disallow)
app.command(rich_help_panel=_MAY)(hosts.confirm)
app.command(rich_help_panel=_MAY)(changes.notify)
app.command(rich_help_panel=_IS)(who.who)
app.command(rich_help_panel=_IS)(tail.tail)
app.command(rich_help_panel=_IS)(hosts.hosts)
app.command(rich_help_panel=_RUN)(serve.serve)
app.command("check-config", rich_help_panel=_RUN)(serve.check_config)
app.command(rich_help_panel=_RUN)(changes.publish)
app.add_typer(names.app, name="names", rich_help_panel=_TRY)
app.command(rich_help_panel=_TRY)(send.send)
app.command(rich_help_panel=_TRY)(decode.decode)
