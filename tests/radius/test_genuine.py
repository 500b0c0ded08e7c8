"""Authenticators of all kinds of packets; pyrad makes the packets."""

import pytest
from pyrad.packet import AccessAccept, AcctPacket, AuthPacket, CoAPacket
from pyrad.packet import Packet as PyradPacket

from radius_bridge.radius import status
from radius_bridge.radius.genuine import RESPONSES, Verdict, verdict
from radius_bridge.radius.packet import accounting_request, accounting_response, parse

SECRET = b"a shared secret!"


def changed(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 1,))


def reply(request: PyradPacket, *, signed: bool) -> bytes:
    answer = request.CreateReply()
    answer[18] = [b"hello"]
    if signed:
        answer.add_message_authenticator()
    octets: bytes = answer.ReplyPacket()
    return octets


@pytest.mark.parametrize("signed", [False, True])
def test_requests_whose_authenticator_is_computed_rfc_2866_3_rfc_5176_2_3(signed: bool) -> None:
    for made in (
        AcctPacket(id=1, secret=SECRET),
        CoAPacket(id=2, secret=SECRET),
        CoAPacket(code=40, id=3, secret=SECRET),
    ):
        made[1] = [b"alice"]
        if signed:
            made.add_message_authenticator()
        data = made.RequestPacket()
        assert verdict(parse(data), SECRET) is Verdict.RIGHT
        assert verdict(parse(data), b"another") is Verdict.WRONG
        assert verdict(parse(changed(data)), SECRET) is Verdict.WRONG


def test_an_access_request_proves_something_only_with_a_message_authenticator_rfc_3579_3_2() -> None:
    plain = AuthPacket(id=1, secret=SECRET)
    plain[1] = [b"alice"]
    assert verdict(parse(plain.RequestPacket()), SECRET) is Verdict.UNCHECKED
    signed = AuthPacket(id=1, secret=SECRET)
    signed.add_message_authenticator()
    signed[1] = [b"alice"]
    data = signed.RequestPacket()
    assert verdict(parse(data), SECRET) is Verdict.RIGHT
    assert verdict(parse(data), b"another") is Verdict.WRONG
    assert verdict(parse(status.request(7, SECRET)), SECRET) is Verdict.RIGHT


@pytest.mark.parametrize("signed", [False, True])
def test_responses_are_judged_by_the_request_that_they_answer_rfc_2865_3(signed: bool) -> None:
    made = AuthPacket(id=1, secret=SECRET)
    made[1] = [b"alice"]
    request = parse(made.RequestPacket())
    data = reply(made, signed=signed)
    assert parse(data).code == AccessAccept
    assert verdict(parse(data), SECRET, request) is Verdict.RIGHT
    assert verdict(parse(data), SECRET) is Verdict.UNCHECKED
    assert verdict(parse(data), b"another", request) is Verdict.WRONG
    assert verdict(parse(changed(data)), SECRET, request) is Verdict.WRONG


def test_our_own_responses_are_right() -> None:
    request = parse(accounting_request(1, [(1, b"alice"), (33, b"state")], SECRET))
    assert verdict(parse(accounting_response(request, SECRET)), SECRET, request) is Verdict.RIGHT
    asked = parse(status.request(7, SECRET))
    assert verdict(parse(status.response(asked, SECRET)), SECRET, asked) is Verdict.RIGHT


@pytest.mark.parametrize("length", [0, 15, 17])
def test_a_message_authenticator_of_another_length_is_wrong(length: int) -> None:
    assert verdict(parse(accounting_request(1, [(80, bytes(length))], SECRET)), SECRET) is Verdict.WRONG


def test_no_code_is_both_request_and_response() -> None:
    assert not RESPONSES & {1, 4, 12, 40, 43}
