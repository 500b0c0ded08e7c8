"""`radius-bridge-agent metrics`: the agent's status in Prometheus' text format, for node_exporter's textfile collector.

Pure. It is made of the answer to `status`, so that both say the same; times are epoch seconds.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

PREFIX: Final = "radius_bridge_agent_"


class _Family(NamedTuple):
    name: str
    help: str
    samples: Iterable[tuple[Mapping[str, str], float | None]]
    """Labels and value; without a value there is no sample."""


def exposition(status: Mapping[str, Any]) -> str:
    """The metrics of a status, as agent.enforce.Enforcer.status gives it."""
    lines: list[str] = []
    for family in _families(status):
        kind = "counter" if family.name.endswith("_total") else "gauge"
        samples = [
            f"{PREFIX}{family.name}{_labels(labels)} {value}" for labels, value in family.samples if value is not None
        ]
        if samples:
            lines += [f"# HELP {PREFIX}{family.name} {family.help}", f"# TYPE {PREFIX}{family.name} {kind}", *samples]
    return "\n".join([*lines, ""])


def _families(status: Mapping[str, Any]) -> Iterator[_Family]:
    change = status["last_change"] or {}
    lag = change["programmed"] - change["woken"] if change else None
    in_sets = {each["name"]: each for each in status["services"]} | status["overrides"]
    feed = {name: count for name, count in status["feed"].items() if type(count) is int and name != "covered"}
    members = status["limits"]["members"]
    yield _Family("enforcing", "1 if the kernel is as Consul says.", _one(int(status["enforcing"])))
    yield _Family("observing", "1 if nobody is refused.", _one(int(status["mode"] == "observe")))
    yield _Family("applied_seconds", "When the kernel was last looked after.", _one(status["applied"]))
    yield _Family("change_lag_seconds", "From hearing of the last change to having it in the kernel.", _one(lag))
    yield _Family(
        "contact_age_seconds", "Since Consul last told how things are.", _by("source", status["contact_age_s"])
    )
    yield _Family("feed_complete", "1 if all that counts here was read.", _one(int(status["feed"]["complete"])))
    yield _Family("feed_total", "What the follower of the change feed did.", _by("what", feed))
    yield _Family("errors", "1 for each part that is in trouble.", _by("where", dict.fromkeys(status["errors"], 1)))
    yield _Family(
        "desired_members",
        "Who is to be in a service or override.",
        _by("set", {name: each["members"] for name, each in in_sets.items()}),
    )
    yield _Family("programmed_members", "Members in the kernel, in all sets.", _one(members["now"]))
    yield _Family("members_limit", "What a host is made for.", _one(members["most"]))
    yield _Family(
        "soonest_expiry_seconds",
        "When the next member ends.",
        _by("set", {name: each["soonest_expiry"] for name, each in in_sets.items()}),
    )
    yield _Family("repairs_total", "What was changed by hand and put back.", _by("kind", status["repairs"]))
    yield _Family("refused_total", "Attempts to connect that were refused.", _by("what", status["refused"]))
    yield _Family("held", "Mass changes that are held back.", _one(len(status["held"])))
    yield _Family("absent_services", "Services that are listed no more.", _one(len(status["absent_services"])))
    yield _Family("problems", "Keys and services that could not be understood.", _one(status["problem_count"]))
    yield _Family("alarms", "What somebody must look after.", _one(len(status["alarms"])))


def _one(value: float | None) -> list[tuple[Mapping[str, str], float | None]]:
    return [({}, value)]


def _by(label: str, values: Mapping[str, float | None]) -> list[tuple[Mapping[str, str], float | None]]:
    return [({label: name}, value) for name, value in sorted(values.items())]


def _labels(labels: Mapping[str, str]) -> str:
    quoted = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{','.join(quoted)}}}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
