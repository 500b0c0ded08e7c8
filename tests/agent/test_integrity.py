"""What is looked at, and when: hints at once, the rest in turn within a bounded rate."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from agent.dataplane import events
from agent.dataplane.change import Change
from agent.dataplane.compare import Difference
from agent.dataplane.errors import DataplaneError
from agent.dataplane.events import RULES, Touched
from agent.dataplane.kinds import KINDS, set_name
from agent.desired import ALLOW, DENY, Desired
from agent.integrity import Integrity
from agent.rounds import IPSET
from radius_bridge.policy.members import Prefix
from radius_bridge.policy.services import Service, parse_ports

SSH = Service("ssh_tcp_22", (parse_ports("22"),))


class Kernel:
    """A dataplane whose kernel is what the test says."""

    def __init__(self, members: int, *, hears_of_rules: bool = True) -> None:
        self.hears_of_rules = hears_of_rules
        self.desired = Desired((SSH,), {SSH.name: {Prefix(4, number, 32): -1 for number in range(members)}})
        self.surplus = 0
        self.wrong: list[Difference] = []
        self.looked: list[set[str]] = []
        self.applied = 0
        self.is_out_of_order = False
        self.refuses = False
        self.stranger = ""
        self.is_uncountable = False

    async def apply(self, desired: Desired, now: float, changed: Mapping[str, Collection[Any]] | None = None) -> Change:
        if self.refuses:
            raise DataplaneError("the kernel refuses")
        self.applied += 1
        self.surplus = 0
        self.wrong = []
        return Change(rules=[4])

    async def compare(self, desired: Desired, now: float, only: Collection[str] | None = None) -> Sequence[Difference]:
        if self.is_out_of_order:
            raise DataplaneError("the kernel is out of order")
        self.looked.append(set(only or ()))
        return [each for each in self.wrong if only is None or each.what in only]

    async def counts(self) -> Mapping[str, int] | None:
        if self.is_uncountable:
            raise DataplaneError("the kernel does not count")
        found = {set_name(kind, name): 0 for name in (ALLOW, SSH.name) for kind in KINDS}
        found |= {set_name(kind, DENY): 1 for kind in KINDS if not kind.hosts}  # nobody's address
        found |= {self.stranger: 0} if self.stranger else {}
        return found | {f"rb4h.{SSH.name}": len(self.desired.of(SSH.name)) + self.surplus}

    def distrust(self, sets: Collection[str]) -> None:
        """Nothing is remembered."""

    def hear_nothing(self, while_many: Callable[[], AbstractContextManager[None]]) -> None:
        """Nothing is heard anyway."""

    def is_mine(self, port: int) -> bool:
        return False

    def concerned(self, touched: Touched) -> str | None:
        return RULES


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def _look(kernel: Kernel, integrity: Integrity, clock: Clock, seconds: float = 3.0) -> set[str]:
    """What the next look looks into."""
    before = len(kernel.looked)
    await integrity.look(kernel.desired)
    clock.now += seconds
    return set().union(*kernel.looked[before:])


async def test_a_small_host_is_read_back_with_every_look() -> None:
    kernel, clock = Kernel(1000), Clock()
    integrity = Integrity(kernel, 3.0, clock)
    for _ in range(3):
        assert f"rb4h.{SSH.name}" in await _look(kernel, integrity, clock)
    assert kernel.applied == 0


async def test_a_set_with_another_number_of_members_is_looked_into_at_once() -> None:
    kernel, clock = Kernel(IPSET.most + 1), Clock()
    integrity = Integrity(kernel, 3.0, clock)
    assert f"rb4h.{SSH.name}" not in await _look(kernel, integrity, clock)
    kernel.surplus = 1
    kernel.wrong = [Difference(f"rb4h.{SSH.name}", extra=("192.0.2.66",))]
    assert f"rb4h.{SSH.name}" in await _look(kernel, integrity, clock)
    assert kernel.applied == 1
    assert integrity.repairs.by_kind == {"members": 1}


async def test_what_is_put_back_counts_when_that_is_done() -> None:
    kernel, clock = Kernel(1, hears_of_rules=False), Clock()
    integrity = Integrity(kernel, 3.0, clock)
    kernel.wrong, kernel.refuses = [Difference(RULES, extra=("ipv4 -A RB-INPUT -j ACCEPT",))], True
    with pytest.raises(DataplaneError):
        await integrity.look(kernel.desired)
    assert integrity.repairs.by_kind == {}
    kernel.refuses = False
    await kernel.apply(kernel.desired, clock.now)  # as the enforcer does, again and again
    await integrity.look(kernel.desired)
    assert integrity.repairs.by_kind == {"rules": 1}


async def test_a_set_that_is_nobodys_is_looked_into_though_its_name_is_nearly_ours() -> None:
    """What shuts out holds addresses with networks: a set for addresses alone is a stranger's."""
    kernel, clock = Kernel(1), Clock()
    integrity = Integrity(kernel, 3.0, clock)
    await _look(kernel, integrity, clock)
    stranger = f"rb4h.{DENY}"
    assert stranger not in await _look(kernel, integrity, clock)
    kernel.stranger = stranger
    kernel.wrong = [Difference(stranger, extra=("the set itself",))]
    assert stranger in await _look(kernel, integrity, clock)
    assert integrity.repairs.by_kind == {"set": 1}


async def test_members_that_are_about_to_end_may_be_missing() -> None:
    kernel, clock = Kernel(IPSET.most + 1), Clock()
    integrity = Integrity(kernel, 3.0, clock)
    integrity.ending = lambda name, until: 5 if name == SSH.name else 0
    kernel.surplus = -5
    assert f"rb4h.{SSH.name}" not in await _look(kernel, integrity, clock)
    kernel.surplus = -6
    assert f"rb4h.{SSH.name}" in await _look(kernel, integrity, clock)


async def test_rules_that_are_not_heard_of_are_looked_at_each_time() -> None:
    kernel, clock = Kernel(1, hears_of_rules=False), Clock()
    integrity = Integrity(kernel, 3.0, clock)
    assert RULES in await _look(kernel, integrity, clock)
    assert integrity.next_look() == clock.now
    clock.now -= 1
    assert await _look(kernel, integrity, clock) == set()


async def test_what_could_not_be_looked_at_is_looked_at_again() -> None:
    kernel, clock = Kernel(1, hears_of_rules=False), Clock()
    integrity = Integrity(kernel, 3.0, clock)
    kernel.is_out_of_order = True
    with pytest.raises(DataplaneError):
        await integrity.look(kernel.desired)
    kernel.is_out_of_order = False
    assert RULES in await _look(kernel, integrity, clock, seconds=0)


class Told:
    """The kernel tells of one change of rules, and of no more."""

    def __init__(self, is_mine: Callable[[int], bool]) -> None:
        self._handle = os.eventfd(0)
        self._told = [events.Told(7, "nft", 7, frozenset([Touched(1, "ours", "input")]))]
        self.deaf = nullcontext

    def close(self) -> None:
        os.close(self._handle)

    def fileno(self) -> int:
        return self._handle

    def take(self) -> tuple[list[events.Told], bool]:
        told, self._told = self._told, []
        return told, False


async def test_what_was_heard_of_is_not_forgotten_because_members_cannot_be_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent.integrity.EventSocket", Told)
    kernel, clock = Kernel(1), Clock()
    integrity = Integrity(kernel, 3.0, clock)
    with integrity.listening(lambda: None):
        kernel.is_uncountable = True
        with pytest.raises(DataplaneError):
            await integrity.look(kernel.desired)
        kernel.is_uncountable = False
        assert RULES in await _look(kernel, integrity, clock, seconds=0)
        assert RULES not in await _look(kernel, integrity, clock)
