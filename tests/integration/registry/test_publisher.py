"""The publisher, when its token may not do all of it."""

from collections.abc import Awaitable, Callable, Sequence

import pytest
from structlog.testing import capture_logs

from radius_bridge.registry import meta, publisher
from radius_bridge.registry.consul import Consistency, Consul
from radius_bridge.registry.errors import Forbidden
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Committed, Op, Snapshot
from radius_bridge.registry.publisher import Publisher
from radius_bridge.registry.settings import ConsulSettings
from tests.integration.registry.running import running
from tests.lab.consul import ConsulServer

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[float]]


class Limited(Consul):
    """A connection that may not touch what has `forbidden` in its key."""

    forbidden = "nothing"

    async def transact(self, ops: Sequence[Op], *, timeout: float = 5.0) -> Committed:
        if any(self.forbidden in op.key for op in ops):
            raise Forbidden(f"{self.forbidden}: the token may not")
        return await super().transact(ops, timeout=timeout)

    async def read(
        self, prefix: str, *, index: int = 0, wait: float = 30.0, consistency: Consistency = "default"
    ) -> Snapshot:
        if self.forbidden in prefix:
            raise Forbidden(f"{self.forbidden}: the token may not")
        return await super().read(prefix, index=index, wait=wait, consistency=consistency)


async def test_what_fails_for_one_class_does_not_keep_the_other_from_its_work(
    server: ConsulServer, consul: Consul, keys: Keys, eventually: Eventually
) -> None:
    await meta.ensure(consul, keys)
    async with Limited(ConsulSettings(url=server.url)) as limited:
        limited.forbidden = "published-engineer"
        made = Publisher(limited, keys)

        async def is_noted() -> bool:
            return await consul.get(f"{keys.root}/$lock$/published-bridge") is not None

        async def has_failed() -> bool:
            return made.counters["failures"] > 0

        with capture_logs() as log:
            async with running(made.run()):
                await eventually(is_noted, within=20)
                await eventually(has_failed, within=20)
    assert {*(line["writers"][0] for line in log if line["event"] == "cannot publish for now")} == {"access/engineer"}


async def test_who_may_not_read_all_says_so_and_leads_nobody(
    server: ConsulServer, consul: Consul, keys: Keys, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "READ_WITHIN", 0.5)
    await meta.ensure(consul, keys)
    async with Limited(ConsulSettings(url=server.url)) as limited:
        limited.forbidden = "$service$"
        made = Publisher(limited, keys)

        async def is_told() -> bool:
            return made.counters["incomplete"] > 2

        with capture_logs() as log:
            async with running(made.run()):
                await eventually(is_told, within=20)
    assert [line["event"] for line in log].count("cannot publish: not everything can be read; may the token?") == 1
    assert made.counters["readings"] == 0
