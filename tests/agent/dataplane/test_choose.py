"""Which backend works on a host, and when a host has come near its limit."""

from pathlib import Path

import pytest

from agent.dataplane import choose
from agent.dataplane.base import MOST_MEMBERS, Leftovers, check_names, limit_alarms
from agent.dataplane.errors import DataplaneError
from agent.desired import CustomSet, Desired, Posture, Target
from agent.report import about_limits
from radius_bridge.policy.services import Service, parse_ports


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host that has no programs but those in this directory."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def _install(host: Path, *programs: str) -> None:
    for program in programs:
        (host / program).touch(mode=0o755)


def test_auto_is_ipset_where_there_is_iptables_and_else_nftables(host: Path) -> None:
    with pytest.raises(DataplaneError, match="install the package iptables or nftables"):
        choose.choose("auto")
    _install(host, "nft")
    assert choose.choose("auto") == "nftables"
    _install(host, "iptables-restore")
    assert choose.choose("auto") == "ipset"


@pytest.mark.parametrize("backend", ["ipset", "nftables"])
def test_what_is_configured_is_taken(host: Path, backend: str) -> None:
    assert choose.choose(backend) == backend
    assert choose.dataplane(backend, host / "lock", {}).name == backend


@pytest.mark.parametrize(
    ("names", "modules", "may_be"),
    [
        (None, "", False),
        ("nat\nfilter\n", "", True),
        ("nat\n", "ip_tables 1 0 - Live 0\niptable_filter 1 0 - Live 0\n", False),
        ("only root's", "ip_tables 1 0 - Live 0\n", False),
        ("only root's", "ip_tables 1 0 - Live 0\niptable_filter 1 0 - Live 0\n", True),
        ("only root's", "", True),
    ],
)
def test_whether_iptables_legacy_is_in_use_is_known_to_root_and_else_by_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str | None, modules: str, may_be: bool
) -> None:
    (tmp_path / "modules").write_text(modules)
    folder = tmp_path / "thread-self" / "net"
    folder.mkdir(parents=True)
    if names is not None:
        (folder / "ip_tables_names").write_text(names)
    read = Path.read_text

    def as_nobody(path: Path) -> str:
        text = read(path)
        if text == "only root's":
            raise PermissionError
        return text

    monkeypatch.setattr(Path, "read_text", as_nobody)
    assert choose.has_filter("ip_tables", tmp_path) is may_be


class Left:
    """What another backend has left, which may be busy."""

    def __init__(self, *, busy: bool = False) -> None:
        self.busy = busy
        self.removed = 0

    async def enforces(self) -> bool:
        """Until it is removed."""
        return not self.removed

    async def remove(self) -> None:
        """Unless it is busy."""
        if self.busy:
            raise DataplaneError("busy")
        self.removed += 1


async def test_leftovers_are_removed_once_and_what_failed_is_tried_again() -> None:
    one, other = Left(), Left(busy=True)
    leftovers = Leftovers([one, other])
    with pytest.raises(DataplaneError, match="busy"):
        await leftovers.remove()
    assert await leftovers.enforce()
    other.busy = False
    await leftovers.remove()
    await leftovers.remove()
    assert (one.removed, other.removed) == (1, 1)
    assert not await leftovers.enforce()


def test_there_is_an_alarm_before_the_limit() -> None:
    assert limit_alarms(MOST_MEMBERS * 8 // 10 - 1) == []
    assert limit_alarms(MOST_MEMBERS * 8 // 10) == [
        "800,000 members on this host, which is made for 1,000,000: grant networks instead of addresses, or protect "
        "some of the services on another host"
    ]
    assert about_limits(MOST_MEMBERS * 8 // 10)["members"]["near"]
    assert not about_limits(3)["members"]["near"]


def test_a_service_cannot_be_called_like_a_set() -> None:
    posture = Posture(sets=(CustomSet("mine", Target.NONE),))
    with pytest.raises(DataplaneError, match=r"'mine'.*has this name"):
        check_names(Desired((Service("mine", (parse_ports("22"),)),), {}, (), posture))
