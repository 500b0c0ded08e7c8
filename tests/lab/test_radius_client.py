"""The lab's own RADIUS client, checked against pyrad: what the tests rest on is right."""

from pyrad.packet import AcctPacket, Packet

from tests.lab.radius_client import Status, accounting, is_response, request

SECRET = b"a-lab-secret"


def test_pyrad_takes_our_requests_for_genuine() -> None:
    packet = request(7, accounting(Status.START, "alice", "s1", "192.0.2.10", "2001:db8::1"), SECRET)
    theirs = AcctPacket(packet=packet, secret=SECRET)
    assert theirs.VerifyAcctRequest()
    assert theirs[1] == [b"alice"]
    assert theirs[8] == [bytes([192, 0, 2, 10])]


def test_pyrads_response_is_genuine_and_a_changed_one_is_not() -> None:
    packet = request(7, accounting(Status.STOP, "alice", "s1"), SECRET)
    reply: Packet = AcctPacket(packet=packet, secret=SECRET).CreateReply()
    answer: bytes = reply.ReplyPacket()
    assert is_response(answer, packet, SECRET)
    assert not is_response(answer, packet, b"another-secret")
    assert not is_response(answer[:-1] + bytes([answer[-1] ^ 1]), packet, SECRET)
    assert not is_response(answer, request(8, [], SECRET), SECRET)
