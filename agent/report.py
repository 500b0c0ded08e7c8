"""What the agent says about itself: the answer to `status`."""

import time
from collections import Counter
from typing import Any, Final

from agent.dataplane.base import MOST_MEMBERS, WAY_OUT, limit_alarms
from agent.desired import Desired
from agent.guard import Held
from agent.learning import Learning
from agent.notes import about_ports, local_range

PROBLEMS: Final = 100
"""Problems that the status names; more are counted."""

SILENCE: Final = 45.0
"""Seconds without an answer of Consul from which on something is wrong: its long polls end after some 32 at most."""


def contact_ages(learning: Learning, services_read: float) -> dict[str, float]:
    """Seconds since Consul last told how things are, by what it was asked (`services_read`: monotonic, or 0)."""
    contacts = {"feed": learning.follower.last_contact, "services": services_read}
    now = time.monotonic()
    return {source: round(now - at, 3) for source, at in contacts.items() if at}


def trouble(learning: Learning, began: float) -> dict[str, str]:
    """What is wrong with the feed; `began` is when the agent began to follow it (monotonic)."""
    if learning.follower.trouble:
        return {"feed": learning.follower.trouble}
    silence = time.monotonic() - max(began, learning.follower.last_contact)
    return {"feed": f"Consul has not answered for {silence:.0f} s"} if silence > SILENCE else {}


def about_learning(learning: Learning) -> dict[str, Any]:
    """What is known of Consul, and what is held back."""
    problems = learning.host.problems()
    counters: Counter[str] = learning.follower.counters
    return {
        "node": learning.host.scope.node,
        "datacenter": learning.host.scope.dc,
        "waiting_for": learning.host.waiting_for(),
        "feed": {
            "covered": learning.host.covered,
            "complete": learning.follower.is_complete,
            **dict(sorted(counters.items())),
        },
        "problems": problems[:PROBLEMS],
        "problem_count": len(problems),
        "held": [about_held(held) for held in learning.guard.held],
    }


def about_limits(entries: int) -> dict[str, Any]:
    """How near this host is to what it is made for, by limit; with the way out."""
    is_near = bool(limit_alarms(entries))
    return {"members": {"now": entries, "most": MOST_MEMBERS, "near": is_near, "way_out": WAY_OUT}}


def about_held(held: Held) -> dict[str, Any]:
    """One change that is held back; times are epoch seconds."""
    return {
        "digest": held.digest,
        "kind": str(held.kind),
        "of": held.name,
        "since": held.since,
        "members": len(held.members),
        "some": [str(prefix) for prefix in sorted(held.members, key=lambda prefix: prefix.length)[:5]],
        "waits_for": "confirm" if held.needs_word and held.agreed else "second read",
    }


def about_enforced(learning: Learning, enforced: Desired | None, now: float) -> dict[str, Any]:
    """The services and overrides that are enforced, with how many are in them at `now` (epoch seconds)."""

    def count(name: str) -> dict[str, Any]:
        members, soonest = learning.host.count(name, now)
        if enforced is not None and name in enforced.members:
            members = len(enforced.members[name])
        return {"members": members, "soonest_expiry": soonest}

    services = enforced.services if enforced else ()
    return {
        "notes": about_ports(services, local_range()),
        "services": [
            {
                "name": service.name,
                "ports": [str(port) for port in service.ports],
                "origin": service.origin,
            }
            | count(service.name)
            for service in services
        ],
        "overrides": {name: count(name) for name in learning.host.overrides},
    }
