"""MAC addresses out of what DHCP servers write down."""

import pytest

from radius_bridge.leases.stations import mac_of_duid, mac_of_hardware


@pytest.mark.parametrize(
    ("duid", "mac"),
    [
        ("00:03:00:01:36:47:4E:ac:9c:49", "36:47:4e:ac:9c:49"),  # DUID-LL
        ("00:01:00:01:32:95:2e:7d:76:fe:83:2c:9e:4d", "76:fe:83:2c:9e:4d"),  # DUID-LLT
        ("00:02:00:00:01:02:36:47:4e:ac:9c:49", ""),  # DUID-EN: a vendor's own
        ("00:04:36:47:4e:ac:9c:49:36:47:4e:ac:9c:49:36:47:4e:ac", ""),  # DUID-UUID
        ("00:03:00:20:36:47:4e:ac:9c:49", ""),  # InfiniBand
        ("00:03:00:01:36:47:4e:ac:9c", ""),
        ("", ""),
        ("00:03:00:01:36:47:4e:ac:9c:4", ""),
    ],
)
def test_only_a_duid_made_of_an_ethernet_address_tells_the_mac(duid: str, mac: str) -> None:
    assert mac_of_duid(duid) == mac


@pytest.mark.parametrize(
    ("text", "mac"),
    [
        ("36:47:4E:AC:9C:49", "36:47:4e:ac:9c:49"),
        ("20-36:47:4e:ac:9c:49", ""),  # dnsmasq puts a hardware type before what is no Ethernet
        ("36:47:4e:ac:9c:49:00:11", ""),  # the beginning of a longer address is no MAC
        ("", ""),
    ],
)
def test_a_hardware_address_is_a_mac_if_it_has_six_octets(text: str, mac: str) -> None:
    assert mac_of_hardware(text) == mac
