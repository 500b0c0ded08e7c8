"""Ports that a host also sends from: whoever protects one is told to grant the peers."""

from pathlib import Path

import pytest

from agent.notes import RANGE, about_ports, local_range
from radius_bridge.policy.services import Service, parse_ports


@pytest.mark.parametrize(
    ("ports", "says"),
    [
        ("123/udp", "both sides use 123 (NTP): grant the peers"),
        ("8300:8302/udp", "8301 (Serf), 8302 (Serf)"),
        ("40000/tcp", "40000/tcp is among the ports 32768-60999 from which this host connects"),
        ("30000:33000/tcp", "is among the ports"),
    ],
)
def test_a_service_whose_port_is_a_source_port_too_needs_its_peers_granted(ports: str, says: str) -> None:
    (note,) = about_ports([Service("s_tcp_1", (parse_ports(ports),))], RANGE)
    assert note.startswith("s_tcp_1: ")
    assert says in note


@pytest.mark.parametrize("ports", ["22/tcp", "123/tcp", "8080:8090/udp", "61000/tcp"])
def test_of_others_nothing_is_said(ports: str) -> None:
    assert about_ports([Service("s_tcp_1", (parse_ports(ports),))], RANGE) == []


def test_the_range_is_the_kernels_and_its_default_where_it_cannot_be_read(tmp_path: Path) -> None:
    assert local_range(tmp_path / "none") == RANGE
    (tmp_path / "range").write_text("20000\t30000\n")
    assert local_range(tmp_path / "range") == (20000, 30000)
