"""User names as they arrive, and those that are never bound."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.identity.names import NameRefused, realm_of, user_name


@pytest.mark.parametrize("name", ["alice", "CORP\\alice", "alice@corp.example", "a/b", "$a$", "100%", "Jürgen", "a b"])
def test_printable_names_are_taken_as_they_are(name: str) -> None:
    assert user_name(name.encode()) == name


def test_two_spellings_of_one_character_are_one_name() -> None:
    assert user_name("Jürgen".encode()) == user_name("Ju\u0308rgen".encode())


@pytest.mark.parametrize("raw", [b"", b"  ", b"a\x00b", b"a\nb", b"\xff\xfe", "a\u202eb".encode(), b"a\x7f"])
def test_what_nobody_could_name_in_a_grant_is_refused(raw: bytes) -> None:
    with pytest.raises(NameRefused):
        user_name(raw)


@given(st.binary(max_size=253))
def test_any_octets_give_a_printable_name_or_a_refusal(raw: bytes) -> None:
    with suppress(NameRefused):
        assert user_name(raw).isprintable()


@pytest.mark.parametrize(("name", "realm"), [("alice", ""), ("alice@Corp.Example", "corp.example"), ("a@b@c", "c")])
def test_the_realm_is_what_follows_the_last_at(name: str, realm: str) -> None:
    assert realm_of(name) == realm
