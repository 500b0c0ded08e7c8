"""Ports of several services together."""

from hypothesis import given
from hypothesis import strategies as st

from agent.dataplane.ports import segments, union
from radius_bridge.policy.services import Ports, Protocol, Service, parse_ports

some_ports = st.builds(
    lambda protocol, first, more: Ports(protocol, first, first + more),
    st.sampled_from(Protocol),
    st.integers(1, 30),
    st.integers(0, 8),
)
some_services = st.lists(st.lists(some_ports, min_size=1, max_size=4), max_size=5).map(
    lambda each: [Service(f"s{number}", tuple(ports)) for number, ports in enumerate(each)]
)


def _owners(services: list[Service], protocol: Protocol, port: int) -> tuple[str, ...]:
    return tuple(
        service.name
        for service in services
        if any(each.protocol is protocol and each.first <= port <= each.last for each in service.ports)
    )


@given(some_services)
def test_every_port_is_in_the_one_segment_of_its_services_and_no_other_is(services: list[Service]) -> None:
    found = segments(services)
    for protocol in Protocol:
        for port in range(50):
            holding = [
                each.services
                for each in found
                if each.ports.protocol is protocol and each.ports.first <= port <= each.ports.last
            ]
            owners = _owners(services, protocol, port)
            assert holding == ([owners] if owners else [])


@given(some_services)
def test_segments_are_in_order(services: list[Service]) -> None:
    found = [each.ports for each in segments(services)]
    assert found == sorted(found)


def test_the_union_of_ports_has_no_overlaps() -> None:
    texts = ("80", "8000:8100", "8050:8200", "81", "53/udp", "80")
    assert [str(ports) for ports in union(map(parse_ports, texts))] == ["80:81/tcp", "8000:8200/tcp", "53/udp"]
