"""Tells at `$host$/<node>` in Consul what this host enforces: when that changes, and every few minutes."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

import msgspec
import structlog

from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import Forbidden, RegistryError
from radius_bridge.registry.hosts import HostRecord, Waiting, encode
from radius_bridge.registry.kv import Op

SOONEST: Final = 30.0
"""Seconds between two writes, at least: thousands of hosts share one Consul."""

LATEST: Final = (240.0, 300.0)
"""Seconds after which it is written again though nothing has changed: between these, at random."""

SPREAD: Final = 5.0
"""Seconds over which hosts spread what happened to all of them at once."""

LOOK: Final = 5.0
"""Seconds between two looks at what there is to tell."""

REFUSED: Final = 300.0
"""Seconds before a write is tried again that the token may not do."""

_MOST: Final = 200
"""Services, errors and held changes that are named."""

_LONGEST: Final = 300
"""Characters of an error."""

log = structlog.get_logger()


def record_of(status: dict[str, Any], now: float) -> HostRecord:
    """What to tell, out of the agent's status; `now` is in epoch seconds. Pure."""
    enforcing = "consul" if status["enforcing"] else "restored" if status["restored"] else "nothing"
    errors = dict(status["errors"])
    if status["refused_state"]:
        errors["state at boot"] = status["refused_state"]
    ages = status["contact_age_s"]
    return HostRecord(
        at=round(now, 3),
        datacenter=status["datacenter"],
        enforcing=enforcing,
        applied=status["applied"] or 0.0,
        contact_age=ages.get("feed"),
        services={each["name"]: each["members"] for each in status["services"][:_MOST]},
        service_count=len(status["services"]),
        overrides={name: each["members"] for name, each in status["overrides"].items()},
        absent=tuple(islice(status["absent_services"], _MOST)),
        held=tuple(
            Waiting(each["digest"], each["kind"], each["of"], each["members"], each["since"], each["waits_for"])
            for each in status["held"][:_MOST]
        ),
        errors={what: why[:_LONGEST] for what, why in islice(errors.items(), _MOST)},
        problem_count=status["problem_count"],
        alarm_count=len(status["alarms"]),
        limits={name: each["now"] / each["most"] for name, each in status["limits"].items() if each["near"]},
        refused=dict(islice(status.get("refused", {}).items(), _MOST)),
        refused_from=status.get("refused_from", {}),
        repairs=status.get("repairs", {}),
        counters={name: count for name, count in status["feed"].items() if type(count) is int},
    )


def essence(record: HostRecord) -> object:
    """What of a record is news: not how many are logged in, nor how long ago anything was. Pure."""
    return msgspec.structs.replace(
        record,
        at=0.0,
        applied=0.0,
        contact_age=None,
        services=dict.fromkeys(record.services, 0),
        overrides={},
        errors=dict.fromkeys(record.errors, ""),
        held=tuple((each.digest, each.waits_for) for each in record.held),
        refused={},
        refused_from={},
        limits=dict.fromkeys(record.limits, 0.0),
        counters={},
    )


class Telling:
    """Writes this host's record. That it cannot is counted, and nothing else."""

    def __init__(
        self, consul: Consul, key: str, status: Callable[[], dict[str, Any]], clock: Callable[[], float] = time.time
    ) -> None:
        """`key` is `Keys.host` of the node; `status` is what the agent tells (agent.enforce.Enforcer.status)."""
        self._consul = consul
        self._key = key
        self.status = status
        """What the agent tells."""
        self._clock = clock
        self.counters: Counter[str] = Counter()
        """`writes`, `failures`."""
        self.error = ""
        """Why the last write failed; empty if it did not."""

    async def run(self) -> None:
        """Tells for ever."""
        told: object = None
        latest = 0.0
        while True:
            record = record_of(self.status(), self._clock())
            news = essence(record)
            if news == told and time.monotonic() < latest:
                await asyncio.sleep(LOOK)
                continue
            await asyncio.sleep(random.uniform(0, SPREAD))  # noqa: S311 — spreads load
            record = record_of(self.status(), self._clock())
            pause = await self._write(record)
            if not self.error:
                told = essence(record)
                latest = time.monotonic() + random.uniform(*LATEST)  # noqa: S311 — spreads load
            await asyncio.sleep(pause)

    async def _write(self, record: HostRecord) -> float:
        """Writes; gives the seconds until the next write at the soonest."""
        try:
            await self._consul.transact([Op.set(self._key, encode(record))])
        except RegistryError as error:
            self.counters["failures"] += 1
            if not self.error:
                log.warning("this host cannot be told of", key=self._key, error=str(error))
            self.error = str(error)
            return REFUSED if isinstance(error, Forbidden) else SOONEST
        self.error = ""
        self.counters["writes"] += 1
        return SOONEST
