"""MAC addresses as networks spell them."""

import pytest

from radius_bridge.identity.macs import mac_of


@pytest.mark.parametrize(
    "text",
    [
        "00:1b:2c:3d:4e:5f",
        "00-1B-2C-3D-4E-5F",
        "001b.2c3d.4e5f",
        "001b2c3d4e5f",
        "001b2c-3d4e5f",
        "001B-2C3D-4E5F",
        "00 1b 2c 3d 4e 5f",
        "00.1b.2c.3d.4e.5f",
        "00-1B-2C-3D-4E-5F:CorpNet",
        "001B2C3D4E5F",
    ],
)
def test_every_usual_spelling_is_the_same_address(text: str) -> None:
    assert mac_of(text) == "00:1b:2c:3d:4e:5f"


@pytest.mark.parametrize("text", ["", "198.51.100.7", "alice", "00:1b:2c:3d:4e", "00:1b-2c:3d:4e:5f", "001b2c3d4e5f60"])
def test_what_is_no_mac_address_gives_none(text: str) -> None:
    assert mac_of(text) == ""
