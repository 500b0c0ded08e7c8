"""`radius-bridge`: the commands of the bridge and of network engineers."""

from typing import Final

from radius_bridge.lazy import later, lazy_app

_MAY, _IS, _RUN, _TRY = "Who may what", "Who is where, and what hosts do", "Running the bridge", "Trying things out"

COMMANDS: Final = (
    (
        "grant",
        "grants:grant",
        "Let WHO reach SERVICE: everywhere, in one datacenter (--dc) or on one node (--on).",
        _MAY,
    ),
    ("revoke", "grants:revoke", "Take back what `grant` gave, in exactly that scope.", _MAY),
    ("grants", "grants:list_grants", "List who may reach what, where, and until when.", _MAY),
    ("group", "groups:app", "Groups of users, addresses and other groups.", _MAY),
    (
        "block",
        "blocks:block",
        "Let WHO reach nothing on any protected host, in any datacenter; live connections end too.",
        _MAY,
    ),
    ("unblock", "blocks:unblock", "Take back what `block` did, in every datacenter and in exactly that scope.", _MAY),
    (
        "allow",
        "blocks:allow",
        "Break-glass: let WHO reach everything on every protected host, blocked or not, until the time is over.",
        _MAY,
    ),
    ("disallow", "blocks:disallow", "Take back what `allow` did, in every datacenter and in exactly that scope.", _MAY),
    ("confirm", "hosts:confirm", "Say that a mass change is meant which hosts found in Consul and hold back.", _MAY),
    (
        "notify",
        "changes:notify",
        "Have all hosts hear at once of what another program wrote below PREFIX, or of a key that it deleted.",
        _MAY,
    ),
    (
        "who",
        "who:who",
        "Show who is logged in where: user, address, since, until, NAS, MAC address, and who says so.",
        _IS,
    ),
    ("tail", "tail:tail", "Follow logins and logouts as they are recorded, until Ctrl-C.", _IS),
    (
        "hosts",
        "hosts:hosts",
        "List the protected hosts: what they enforce, how fresh that is, what they hold back, what is wrong.",
        _IS,
    ),
    ("serve", "serve:serve", "Receive RADIUS accounting and record who is behind which address in Consul.", _RUN),
    (
        "check-config",
        "serve:check_config",
        "Read the configuration and say what is wrong with it, or how it is understood.",
        _RUN,
    ),
    (
        "publish",
        "changes:publish",
        "Announce what other programs write for engineers, where the token of `serve` may not. Runs until stopped.",
        _RUN,
    ),
    ("names", "names:app", "How user names are read.", _TRY),
    ("send", "send:send", "Send one accounting packet as a NAS would, and wait for the answer.", _TRY),
    (
        "decode",
        "decode:decode",
        "Show what is in RADIUS packets: attributes by name, and whether the authenticators are right.",
        _TRY,
    ),
)
"""Name, where it is in radius_bridge.cli, the first paragraph of its help, and the panel in which it is listed."""

app = lazy_app(
    "Open a port for a person instead of an address.\n\n"
    "RADIUS accounting says who is behind which address; `grant` says who may reach which service; "
    "the agent on each host enforces both."
)
for _name, _where, _summary, _panel in COMMANDS:
    later(app, _name, f"radius_bridge.cli.{_where}", _summary, _panel)
