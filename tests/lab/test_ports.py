"""Ports that are given to servers: nobody else may get one before its server listens."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.ports import BLOCK, Ports, blocks, free_port, free_ports
from tests.lab.processes import PROJECT, LabError


@pytest.fixture
def ports() -> Iterator[Ports]:
    made = Ports()
    yield made
    made.close()


def test_the_kernel_gives_none_of_them_to_whoever_connects(ports: Ports) -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not any(low <= port <= high for port in (*ports.take(BLOCK // 2), free_port(), *free_ports(4)))


def test_the_ports_of_a_process_are_nobody_elses_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import sys; from tests.lab.ports import free_port; print(free_port(), flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        theirs = next(block for block in blocks(0, 0) if port in block)
        monkeypatch.setattr("tests.lab.ports.blocks", lambda low, high: [theirs])
        with pytest.raises(LabError, match="other processes have the other 1 blocks"):
            Ports()
    ours = Ports()
    assert ours.take(4)[0] in theirs
    ours.close()


def test_where_the_kernel_chooses_from_all_ports_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = tmp_path / "ip_local_port_range"
    chosen.write_text("1024\t65535\n")
    monkeypatch.setattr("tests.lab.ports._CHOSEN", chosen)
    with pytest.raises(LabError, match=r"net\.ipv4\.ip_local_port_range='32768 60999'"):
        Ports()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_where_somebody_listens_is_passed_over(ports: Ports, kind: socket.SocketKind) -> None:
    last = ports.take(1)[0]
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", last + 2))
        assert ports.take(3) == range(last + 3, last + 6)


def test_all_others_are_given_before_one_comes_again(ports: Ports) -> None:
    given: list[int] = []
    while (port := ports.take(1)[0]) not in given:
        given.append(port)
    assert port == given[0]
    assert len(given) > BLOCK // 2  # somebody may listen at some of them


@pytest.mark.parametrize(("low", "high", "expected"), [(32_768, 60_999, 52), (15_000, 65_535, 9), (1024, 65_535, 0)])
def test_blocks_are_outside_of_what_the_kernel_chooses_from(low: int, high: int, expected: int) -> None:
    found = blocks(low, high)
    assert len(found) == expected
    assert not any(low <= port <= high for block in found for port in block)
    assert all(len(block) == BLOCK and block[-1] < 65_536 for block in found)
