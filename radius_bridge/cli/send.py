"""`send`: test traffic to any accounting server, as a NAS would send it."""

import hashlib
import itertools
import os
import socket
import time
from enum import StrEnum
from typing import Annotated

import typer

from radius_bridge.cli.output import FAILED, USAGE, JsonOption, fail, print_json
from radius_bridge.cli.radius_options import (
    DictionariesOption,
    SecretEnvOption,
    SecretFileOption,
    SecretOption,
    assign_text,
    read_dictionaries,
    read_secret,
)
from radius_bridge.policy.expiry import parse_duration
from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius.dictionary import Dictionary
from radius_bridge.radius.packet import Attribute, Malformed, accounting_request, is_response

Sockaddr = tuple[str, int] | tuple[str, int, int, int]


class What(StrEnum):
    """What happened, as engineers call it."""

    LOGIN = "login"
    INTERIM = "interim"
    LOGOUT = "logout"
    ON = "on"
    OFF = "off"

    @property
    def status(self) -> str:
        """Acct-Status-Type (RFC 2866 §5.1)."""
        return {
            What.LOGIN: "Start",
            What.INTERIM: "Interim-Update",
            What.LOGOUT: "Stop",
            What.ON: "Accounting-On",
            What.OFF: "Accounting-Off",
        }[self]


def send(
    what: Annotated[
        What, typer.Argument(metavar="login|interim|logout|on|off", help="What to tell; on and off are the NAS' own.")
    ],
    user: Annotated[str, typer.Argument(metavar="[USER]", help="Who (User-Name).")] = "",
    address: Annotated[
        list[str] | None, typer.Argument(metavar="[ADDRESS]...", help="Behind which addresses, IPv4 or IPv6.")
    ] = None,
    server: Annotated[
        str, typer.Option("--server", "-s", metavar="HOST:PORT", help="Where to; the port is 1813 if it is not said.")
    ] = "127.0.0.1:1813",
    secret: SecretOption = "",
    secret_file: SecretFileOption = None,
    secret_env: SecretEnvOption = "",
    session: Annotated[
        str,
        typer.Option("--session", metavar="ID", help="Acct-Session-Id; without it, one that USER and ADDRESSes make."),
    ] = "",
    nas: Annotated[str, typer.Option("--nas", metavar="NAME", help="NAS-Identifier.")] = "radius-bridge-send",
    mac: Annotated[str, typer.Option("--mac", metavar="MAC", help="Calling-Station-Id.")] = "",
    session_timeout: Annotated[
        str, typer.Option("--session-timeout", metavar="DURATION", help="Session-Timeout, for example 8h.")
    ] = "",
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            "--attribute",
            "-a",
            metavar="NAME=VALUE",
            help="One more attribute, such as `Class=staff`; octets as text or as 0x1f2e. May be repeated.",
        ),
    ] = None,
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", min=0.1, help="For each answer.")] = 3.0,
    tries: Annotated[int, typer.Option("--tries", metavar="N", min=1, max=100, help="How often to send it.")] = 3,
    dictionaries: DictionariesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send one accounting packet as a NAS would, and wait for the answer.

    A login and a logout of the same USER and ADDRESSes belong to one session. Exit code 1 without an answer.
    """
    shared = read_secret(secret, secret_file, secret_env)
    if shared is None:
        fail("the server's shared secret is missing: give --secret-file or --secret-env", USAGE)
    try:
        known = read_dictionaries(dictionaries)
        texts = _texts(what, user, address or [], nas, session, mac, session_timeout)
        request = accounting_request(os.urandom(1)[0], _attributes([*texts, *(attribute or [])], known), shared)
        where = _resolve(server)
    except Malformed as error:
        fail(error.what, USAGE)
    except ValueError as error:
        fail(str(error), USAGE)
    try:
        seconds, attempts = _exchange(request, shared, where, wait, tries)
    except _NoAnswer as error:
        fail(f"no answer from {server}: {error}", FAILED)
    if as_json:
        print_json({"server": server, "milliseconds": round(seconds * 1000, 3), "tries": attempts})
    else:
        again = f", sent {attempts} times" if attempts > 1 else ""
        typer.echo(f"{what.value}: answered by {server} after {seconds * 1000:.1f} ms{again}")


class _NoAnswer(Exception):
    """Nothing came that answers; `str()` says what came instead."""


def _texts(
    what: What, user: str, addresses: list[str], nas: str, session: str, mac: str, session_timeout: str
) -> list[str]:
    """The attributes of the packet, as NAME=VALUE."""
    texts = [f"Acct-Status-Type={what.status}", f"NAS-Identifier={nas}", f"Event-Timestamp={int(time.time())}"]
    if what in (What.ON, What.OFF):
        if user or addresses:
            raise ValueError(f"{what.value} is about the whole NAS: leave USER and ADDRESS out")
        return [*texts, f"Acct-Session-Id={session or 'boot'}"]
    if not user:
        raise ValueError(f"{what.value}: say who, and behind which address")
    prefixes = [parse_prefix(address) for address in addresses]
    name = "/".join([user, *sorted(map(str, prefixes))])
    made = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    texts += [f"User-Name={user}", f"Acct-Session-Id={session or made}"]
    for prefix in prefixes:
        if not prefix.is_host:
            raise ValueError(f"{prefix} is a network: write addresses")
        texts.append(f"{'Framed-IP-Address' if prefix.version == 4 else 'Framed-IPv6-Address'}={prefix}")
    if mac:
        texts.append(f"Calling-Station-Id={mac}")
    if session_timeout:
        texts.append(f"Session-Timeout={parse_duration(session_timeout)}")
    return texts


def _attributes(texts: list[str], dictionary: Dictionary) -> list[Attribute]:
    return list(itertools.chain.from_iterable(assign_text(text, dictionary) for text in texts))


def _resolve(server: str) -> tuple[socket.AddressFamily, Sockaddr]:
    host, colon, port = server.rpartition(":")
    if not colon or host.endswith(":") or (":" in host and not host.startswith("[")):
        host, port = server, "1813"  # a name, or an IPv6 address by itself
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"--server {server}: {port!r} is no port")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--server {server}: {error}") from None
    family, _, _, _, sockaddr = found[0]
    return family, (str(sockaddr[0]), int(sockaddr[1]))


def _exchange(
    request: bytes, secret: bytes, where: tuple[socket.AddressFamily, Sockaddr], wait: float, tries: int
) -> tuple[float, int]:
    """Seconds until the answer, and how often the request was sent. Raises _NoAnswer."""
    foreign = 0
    with socket.socket(where[0], socket.SOCK_DGRAM) as sock:
        began = time.monotonic()
        try:
            sock.connect(where[1])
            for attempt in range(1, tries + 1):
                # The very same octets: a repetition that changes nothing (RFC 5080 §2.2.1).
                sock.send(request)
                deadline = time.monotonic() + wait
                while (left := deadline - time.monotonic()) > 0:
                    sock.settimeout(left)
                    try:
                        data = sock.recv(4096)
                    except TimeoutError:
                        break
                    if is_response(data, request, secret):
                        return time.monotonic() - began, attempt
                    foreign += 1
        except ConnectionRefusedError:
            raise _NoAnswer("nobody listens there") from None
        except OSError as error:
            raise _NoAnswer(error.strerror or str(error)) from None
    if foreign:
        raise _NoAnswer(f"{foreign} packets came that are no answer made with this secret")
    waited = f"{wait:g} s" if tries == 1 else f"{tries} times {wait:g} s"
    raise _NoAnswer(f"nothing came in {waited}. Is the secret right, and this host one of the server's clients?")
