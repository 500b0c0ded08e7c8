"""`radius-bridge-agent`: the commands of a protected host."""

from typing import Final

from radius_bridge.lazy import later, lazy_app

COMMANDS: Final = (
    (
        "run",
        "doing:run",
        "Enforce until stopped (SIGTERM, Ctrl-C). Stopping leaves the rules in place; SIGHUP looks for services anew.",
    ),
    (
        "restore",
        "doing:restore",
        "Enforce what was enforced before the reboot, minus what is over; for the boot, before the network is up.",
    ),
    (
        "forget",
        "asking:forget",
        "Stop protecting SERVICE, which nothing on this host lists any more. Its ports are open to all afterwards.",
    ),
    ("check-config", "doing:check_config", "Read the configuration and say what is wrong with it."),
    ("status", "showing:status", "Show what this host enforces and how fresh that is."),
    (
        "render",
        "doing:render",
        "Show the sets and rules that would be programmed now, without touching anything. Needs no privileges.",
    ),
    (
        "template",
        "doing:template",
        "Print the built-in template of rules, to begin one of your own with (`[templates]` in the configuration).",
    ),
    (
        "uninstall",
        "doing:uninstall",
        "Remove our rules and sets from this host, and nothing else. The protected ports are open to all afterwards.",
    ),
    (
        "takeover",
        "doing:takeover",
        "Remove what BEFW's agent left in the kernel: its chain, the jumps to it, its sets, its table.",
    ),
    ("verify", "asking:verify", "Compare all of the kernel's rules, sets and members with what they should be."),
    (
        "why",
        "asking:why",
        "Say why ADDRESS gets into SERVICE on this host, link by link with each one's end, or what is missing.",
    ),
    (
        "refused",
        "asking:refused",
        "List who tried to reach this host's services and was refused (in observe mode: would have been).",
    ),
    ("metrics", "asking:metrics", "Print the status as metrics for Prometheus."),
)
"""Name, where it is in this package, and the first paragraph of its help."""

app = lazy_app("Lets into this host's services whom Consul's groups and grants name, and nobody else.")
for _name, _where, _summary in COMMANDS:
    later(app, _name, f"agent.{_where}", _summary)
