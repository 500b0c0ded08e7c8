"""How commands write what Consul holds."""

import pytest

from radius_bridge.cli.output import until, warn
from radius_bridge.policy.expiry import parse_expiry


@pytest.mark.parametrize("value", [b"1795322369000", b"9007199254740992", b"253402300799"])
def test_an_expiry_beyond_all_calendars_can_be_shown(value: bytes) -> None:
    expires = parse_expiry(value)  # the first one is in milliseconds, as some programs count
    assert expires is not None
    assert until(expires, 1795322369.0).startswith(("after the year 9999", "9999-"))


def test_what_does_not_end_or_is_over_says_so() -> None:
    assert until(-1, 1795322369.0) == "for good"
    assert until(1, 1795322369.0) == "over"


def test_nothing_that_consul_holds_moves_the_cursor_of_who_is_warned(capsys: pytest.CaptureFixture[str]) -> None:
    warn("befw/$service$/\x1b[2J\nssh: is no grant")
    assert capsys.readouterr().err == "warning: befw/$service$/\ufffd[2J\ufffdssh: is no grant\n"
