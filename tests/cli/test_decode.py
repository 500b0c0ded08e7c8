"""`radius-bridge decode`: packets by name, from digits and captures."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from radius_bridge.cli.main import app
from radius_bridge.radius.attributes import assign
from radius_bridge.radius.dictionary import standard
from radius_bridge.radius.packet import Attribute, accounting_request, accounting_response, parse
from tests.radius.test_capture import V4, V6, enhanced, ethernet, interface, ip, pcap, section

SECRET = b"a shared secret!"


def attributes(*texts: str) -> list[Attribute]:
    return [pair for text in texts for pair in assign(text, standard())]


START = accounting_request(
    7,
    attributes(
        "Acct-Status-Type=Start",
        "User-Name=alice",
        "Framed-IP-Address=10.1.2.3",
        "Framed-IPv6-Prefix=2001:db8::/64",
        "Cisco-AVPair=a=b",
        "Tunnel-Private-Group-Id:1=42",
        "Session-Timeout=3600",
        "Class=0x00ff",
    ),
    SECRET,
)

LINES = """  Acct-Status-Type = Start
  User-Name = "alice"
  Framed-IP-Address = 10.1.2.3
  Framed-IPv6-Prefix = 2001:db8::/64
  Cisco-AVPair = "a=b"
  Tunnel-Private-Group-Id:1 = "42"
  Session-Timeout = 3600
  Class = 0x00ff
"""


def decode(*arguments: str | Path, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(app, ["decode", *map(str, arguments)], input=stdin)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_bytes(SECRET + b"\n")
    file.chmod(0o600)
    return file


def test_a_packet_in_digits_is_shown_by_name() -> None:
    result = decode(START.hex())
    assert result.exit_code == 0
    assert result.stdout == f"Accounting-Request 7, {len(START)} octets\n{LINES}"


@pytest.mark.parametrize("form", [START.hex(" "), START.hex(":"), f"0x{START.hex()}", START.hex(" ", 2)])
def test_digits_may_be_in_groups_and_come_from_standard_input(form: str) -> None:
    assert decode(form).stdout == decode(stdin=form.encode()).stdout == decode("-", stdin=form.encode()).stdout
    assert LINES in decode(form).stdout


def test_a_file_may_hold_several_packets_apart(tmp_path: Path) -> None:
    file = tmp_path / "packets.txt"
    half = len(START.hex(" ")) // 2
    file.write_text(f"{START.hex(' ')[:half]}\n{START.hex(' ')[half:]}\n\n{START.hex()}\n")
    assert decode(file).stdout.count(LINES) == 2


def test_the_authenticator_is_judged_with_the_secret(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_SECRET", SECRET.decode())
    for option in (["--secret-file", str(secret_file)], ["--secret-env", "THE_SECRET"], ["--secret", SECRET.decode()]):
        result = decode(START.hex(), *option)
        assert (result.exit_code, "octets  authenticator right\n" in result.stdout) == (0, True)
    result = decode(START.hex(), "--secret", "another")
    assert (result.exit_code, "octets  authenticator wrong\n" in result.stdout) == (1, True)


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_a_capture_shows_who_asked_whom_and_judges_the_answer_by_the_request(
    tmp_path: Path, secret_file: Path, form: str
) -> None:
    client, server = (V4[1], V4[0]) if form == "pcap" else (V6[1], V6[0])
    frames = [
        ethernet(ip((client, server), START)),
        ethernet(ip((server, client), accounting_response(parse(START), SECRET))),
        ethernet(ip((client, (server[0], 53)), b"a question")),
    ]
    file = tmp_path / "capture"
    file.write_bytes(pcap(1, *frames) if form == "pcap" else section() + interface(1) + b"".join(map(enhanced, frames)))
    result = decode(file, "--secret-file", secret_file)
    assert result.exit_code == 0
    request, _, response = result.stdout.partition(LINES)
    where = "198.51.100.1:40000 → 192.0.2.1:1813" if form == "pcap" else "[2001:db8::2]:40000 → [2001:db8::1]:1813"
    assert f"Accounting-Request 7, {len(START)} octets  authenticator right  {where}  2023-11-1" in request
    assert "Accounting-Response 7, 20 octets  authenticator right" in response
    assert "left out: 1 datagrams of other ports" in result.stderr
    assert decode(file, "--port", "53").exit_code == 1  # a question is no packet


def test_json_has_values_for_programs(secret_file: Path) -> None:
    result = decode(START.hex(), "--json", "--secret-file", secret_file)
    (packet,) = json.loads(result.stdout)
    assert (packet["code"], packet["identifier"], packet["authenticator"]) == ("Accounting-Request", 7, "right")
    by_name = {attribute["name"]: attribute for attribute in packet["attributes"]}
    assert by_name["Acct-Status-Type"] == {
        "name": "Acct-Status-Type",
        "number": "40",
        "type": "integer",
        "value": 1,
        "meaning": "Start",
    }
    assert by_name["Cisco-AVPair"]["number"] == "26.9.1"
    assert by_name["Tunnel-Private-Group-Id"]["tag"] == 1
    assert by_name["Class"]["value"] == "0x00ff"


def test_what_is_malformed_is_told_with_its_place() -> None:
    result = decode(START[:-1].hex())
    assert result.exit_code == 1
    assert result.stdout == f"malformed: Length says {len(START)}, but {len(START) - 1} octets came (octet 2)\n"
    inside = accounting_request(1, [(1, b"alice"), (8, b"\x0a\0\0"), (26, b"\0\0\0\x09\x01\x09x")], SECRET)
    result = decode(inside.hex())
    assert result.exit_code == 1
    assert (
        "Framed-IP-Address = 0x0a0000  (malformed: Framed-IP-Address: an IPv4 address has 4 octets, not 3 (octet 27))"
        in (result.stdout)
    )
    assert (
        "Attr-26.9 = 0x010978  (malformed: 9 octets within an attribute run past its end (octet 32))" in result.stdout
    )


def test_nothing_in_a_packet_moves_the_cursor_and_no_password_is_shown() -> None:
    hostile = accounting_request(1, [(1, b"\x1b[2J\n\xff\xe2\x80\xae"), (2, b"p" * 16), (18, b'"')], SECRET)
    result = decode(hostile.hex())
    assert r'User-Name = "\x1b[2J\n\xff\u202e"' in result.stdout
    assert "User-Password = (16 octets, hidden)" in result.stdout


def test_site_dictionaries_give_names(tmp_path: Path) -> None:
    (tmp_path / "dictionary.site").write_text("ATTRIBUTE Badge 224 string\n")
    packet = accounting_request(1, [(224, b"007")], SECRET).hex()
    assert "Attr-224 = 0x303037" in decode(packet).stdout
    assert 'Badge = "007"' in decode(packet, "--dictionaries", tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-file"], "neither a file that is there nor hexadecimal digits"),
        (["0102", "--secret", "x", "--secret-env", "Y"], "give only one of"),
        (["0102", "--secret-env", "NOT_SET_AT_ALL"], "that variable is empty or not set"),
        (["0102", "--secret-file", "/not/there"], "--secret-file /not/there cannot be read"),
        (["0102", "--dictionaries", "/not/there"], "/not/there: cannot be read"),
        (["010"], "packet 1: write octets as pairs of hexadecimal digits"),
    ],
)
def test_what_cannot_be_meant_ends_with_code_2(arguments: list[str], message: str) -> None:
    result = decode(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_damaged_capture_is_told(tmp_path: Path) -> None:
    file = tmp_path / "capture"
    file.write_bytes(pcap(1, b"frame")[:-1])
    result = decode(file)
    assert result.exit_code == 1
    assert "the capture is damaged: a record of 5 octets runs past the file's end" in result.stderr
