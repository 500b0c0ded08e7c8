"""`decode`: what is in a packet, by name."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from radius_bridge.cli.output import FAILED, USAGE, JsonOption, fail, moment, print_json
from radius_bridge.cli.radius_options import (
    DictionariesOption,
    SecretEnvOption,
    SecretFileOption,
    SecretOption,
    read_dictionaries,
    read_secret,
)
from radius_bridge.radius.attributes import Leaf, unpack
from radius_bridge.radius.capture import Capture, CaptureError, Datagram, is_capture
from radius_bridge.radius.dictionary import Dictionary
from radius_bridge.radius.genuine import CODES, RESPONSES, Verdict, verdict
from radius_bridge.radius.packet import Malformed, Packet, parse
from radius_bridge.radius.sockets import endpoint

PORTS = (1812, 1813, 1645, 1646, 3799)
"""Where RADIUS is spoken over UDP: RFC 2865 §3, RFC 2866 §3 and what was used before them, RFC 5176 §2.3."""

LARGEST = 1 << 30
"""Octets of a file or of stdin; it is read as a whole."""


def decode(
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[HEX|FILE]...",
            help="A packet as hexadecimal digits; or a file, a pcap or pcapng capture or such digits, one packet a "
            "paragraph. Without it, standard input is read.",
        ),
    ] = None,
    secret: SecretOption = "",
    secret_file: SecretFileOption = None,
    secret_env: SecretEnvOption = "",
    port: Annotated[
        list[int] | None,
        typer.Option("--port", metavar="PORT", help="One more UDP port of a capture that is RADIUS; may be repeated."),
    ] = None,
    dictionaries: DictionariesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is in RADIUS packets: attributes by name, and whether the authenticators are right.

    Exit code 1 if a packet is malformed or was made with another secret.
    """
    known = read_dictionaries(dictionaries)
    shared = read_secret(secret, secret_file, secret_env)
    octets = _read(source or [])
    ports = {*PORTS, *(port or ())}
    decoder = _Decoder(known, shared)
    shown: list[dict[str, Any]] = []
    for datagram in _captured(octets, ports) if is_capture(octets) else _written(octets):
        packet = decoder.decode(datagram)
        if as_json:
            shown.append(packet)
        else:
            _print(packet)
    if as_json:
        print_json(shown)
    if not decoder.all_right:
        raise typer.Exit(FAILED)


def _read(source: list[str]) -> bytes:
    try:
        if not source or source == ["-"]:
            return sys.stdin.buffer.read(LARGEST)
        if len(source) == 1 and Path(source[0]).is_file():
            with Path(source[0]).open("rb") as file:
                return file.read(LARGEST)
    except OSError as error:
        fail(f"{source[0]}: cannot be read: {error.strerror}", USAGE)
    text = " ".join(source)
    if not re.fullmatch(r"[0-9A-Fa-fxX:\s]*", text):
        fail(f"{text}: neither a file that is there nor hexadecimal digits", USAGE)
    return text.encode()


def _captured(octets: bytes, ports: set[int]) -> Iterator[Datagram]:
    capture = Capture(octets)
    others = 0
    try:
        for datagram in capture:
            if datagram.source[1] in ports or datagram.destination[1] in ports:
                yield datagram
            else:
                others += 1
    except CaptureError as error:
        fail(f"the capture is damaged: {error}")
    if others or capture.skipped:
        typer.echo(
            f"left out: {others} datagrams of other ports (see --port), "
            f"{capture.skipped} frames that are no whole UDP datagram",
            err=True,
        )


def _written(octets: bytes) -> Iterator[Datagram]:
    for number, paragraph in enumerate(re.split(rb"\n\s*\n", octets.strip()), 1):
        digits = re.sub(rb"0[xX]|[:\s]", b"", paragraph)
        try:
            yield Datagram(None, ("", 0), ("", 0), bytes.fromhex(digits.decode("ascii")))
        except ValueError:
            fail(f"packet {number}: write octets as pairs of hexadecimal digits", USAGE)


@dataclass
class _Decoder:
    """Packets as plain data; remembers requests, because responses are judged by them."""

    dictionary: Dictionary
    secret: bytes | None
    all_right: bool = True
    requests: dict[tuple[tuple[str, int], tuple[str, int], int], Packet] = field(default_factory=dict)

    def decode(self, datagram: Datagram) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        if datagram.time is not None:
            shown["time"] = datagram.time
        if datagram.source[0]:
            shown["source"], shown["destination"] = endpoint(*datagram.source), endpoint(*datagram.destination)
        try:
            packet = parse(datagram.payload)
        except Malformed as error:
            self.all_right = False
            return {**shown, "malformed": str(error)}
        request = None
        if packet.code in RESPONSES:
            request = self.requests.get((datagram.destination, datagram.source, packet.identifier))
        else:
            self.requests[datagram.source, datagram.destination, packet.identifier] = packet
        judged = Verdict.UNCHECKED if self.secret is None else verdict(packet, self.secret, request)
        self.all_right &= judged is not Verdict.WRONG
        shown["code"] = CODES.get(packet.code, str(packet.code))
        shown["identifier"], shown["length"] = packet.identifier, len(packet.raw)
        shown["authenticator"] = judged.value
        shown["attributes"] = [self._attribute(leaf) for leaf in unpack(packet.attributes, self.dictionary)]
        return shown

    def _attribute(self, leaf: Leaf) -> dict[str, Any]:
        shown: dict[str, Any] = {"name": self.dictionary.name(leaf.path), "number": ".".join(map(str, leaf.path))}
        shown["type"] = "octets" if leaf.definition is None else leaf.definition.type.name
        try:
            value = leaf.value()
            text = leaf.show()
        except Malformed as error:
            self.all_right = False
            return {**shown, "value": f"0x{leaf.octets.hex()}", "malformed": str(error)}
        tag, _ = leaf.split_tag()
        if tag is not None:
            shown["tag"] = tag
        if leaf.definition is not None and leaf.definition.hidden:
            return {**shown, "hidden": len(leaf.octets)}
        if isinstance(value, int):
            shown["value"] = value
            if text != str(value):
                shown["meaning"] = text
        else:
            shown["value"] = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return shown


def _print(packet: dict[str, Any]) -> None:
    where = f"  {packet['source']} → {packet['destination']}" if "source" in packet else ""
    when = f"  {moment(packet['time'])}" if "time" in packet else ""
    if "malformed" in packet:
        typer.echo(f"malformed: {packet['malformed']}{where}{when}")
        return
    checked = "" if packet["authenticator"] == Verdict.UNCHECKED else f"  authenticator {packet['authenticator']}"
    typer.echo(f"{packet['code']} {packet['identifier']}, {packet['length']} octets{checked}{where}{when}")
    for attribute in packet["attributes"]:
        tag = f":{attribute['tag']}" if "tag" in attribute else ""
        wrong = f"  (malformed: {attribute['malformed']})" if "malformed" in attribute else ""
        typer.echo(f"  {attribute['name']}{tag} = {_value(attribute)}{wrong}")


def _value(attribute: dict[str, Any]) -> str:
    if "hidden" in attribute:
        return f"({attribute['hidden']} octets, hidden)"
    if attribute["type"] == "string" and "malformed" not in attribute:
        # Nothing that a packet says may move a terminal's cursor.
        plain = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in attribute["value"])
        return f'"{"".join(plain)}"'
    return str(attribute.get("meaning", attribute["value"]))
