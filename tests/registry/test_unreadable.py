"""Values that are not what their key promises: whoever reads one must be told so, and outlive it."""

from collections.abc import Callable

import pytest

from radius_bridge.registry import answers, hosts
from radius_bridge.registry.datacenters import Datacenters
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.feed import decode_record
from radius_bridge.registry.fence import read_fence
from radius_bridge.registry.records import decode_binding, decode_meta, decode_session

VALUES = {
    "nothing": b"",
    "another form": b"[]",
    "not UTF-8": b'{"claims":{"\xff":1},"home":"\xff","user":"\xff","config":"\xff","schema":"\xff","at":"\xff"}',
    "nested without end": b'{"more":' + b"[" * 100_000,
}

READERS: list[Callable[[bytes], object]] = [
    lambda value: decode_session("key", value),
    lambda value: decode_binding("key", value),
    lambda value: decode_meta("key", value),
    lambda value: hosts.decode("key", value),
    lambda value: Datacenters.decode("key", value),
    lambda value: answers.decoded(answers.decode_self, value, "key"),
]


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_a_value_that_cannot_be_read_is_an_error_that_names_its_key(value: bytes) -> None:
    for read in READERS:
        with pytest.raises(RegistryError, match=r"^key: "):
            read(value)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_a_fence_or_a_record_of_changes_that_cannot_be_read_is_none(value: bytes) -> None:
    assert read_fence(value) is None
    with pytest.raises(ValueError, match="no record of changes"):
        decode_record(value)
