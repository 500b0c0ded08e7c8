"""`script/soak fuzz`: mutated packets against the listener, and coverage-guided fuzzing of the readers.

Must hold: no exception escapes, an unsigned packet never becomes an event, memory stays flat.
"""

import asyncio
import gc
import logging
import random
import re
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

import structlog

from radius_bridge import metrics
from radius_bridge.radius.dictionary import directory
from radius_bridge.radius.service import Drop
from soak.frame import Failed, Figures, Soak, progress, resident
from soak.sockets import Batches, Sessions
from soak.targets import TARGETS, Server, codec, seeds, signed

T = TypeVar("T")

GUIDED_SHARE = 0.25
"""Of the time, for coverage-guided fuzzing of all targets together; the rest is for mutation."""

SIGNED_EVERY = 4
"""Every so many mutated packets, one is sent again with the right secret, and read as `decode` does."""

FILES_EVERY = 400
"""Every so many mutated packets, one mutated input of each other target is read: a dictionary, a capture, a stream."""

BATCH_EVERY = 1000
"""Every so many mutated packets, a batch goes through real sockets."""

BATCH = 8
"""Datagrams in one: what every socket buffer holds, though some are longer than any packet."""

SESSION_EVERY = 2000
"""Every so many mutated packets, a DTLS session is begun, and disturbed before or after the end of its handshake."""

MOST_GROWTH = 4.0
"""MiB of resident memory that may come after the first tenth: what the allocator does with holes, no leak."""

LOOK_EVERY = 50_000
"""Packets between two looks at time and memory."""


class Mutator:
    """Makes octets that are nearly right, the same ones for the same seed."""

    def __init__(self, seed: int, corpus: list[bytes]) -> None:
        self._random = random.Random(seed)
        self._corpus = corpus

    def __call__(self) -> bytes:
        """What became of one of the corpus."""
        return self.change(self._corpus[int(self._random.random() * len(self._corpus))])

    def change(self, original: bytes) -> bytes:
        """What became of these octets."""
        draw = self._random.random
        octets = bytearray(original)
        for _ in range(1 + int(draw() * 4)):
            at = int(draw() * len(octets)) if octets else 0
            match int(draw() * 9):
                case 0 | 1 | 2 if octets:
                    octets[at] ^= 1 << int(draw() * 8)
                case 3 if octets:
                    octets[at] = int(draw() * 256)
                case 4 if octets:
                    octets[at] = (0, 1, 2, 3, 127, 128, 254, 255)[int(draw() * 8)]
                case 5:
                    del octets[at : at + 1 + int(draw() * 8)]
                case 6:
                    octets[at:at] = octets[: int(draw() * 16)] or b"\0"
                case 7:
                    other = self._corpus[int(draw() * len(self._corpus))]
                    octets[at:] = other[int(draw() * len(other)) :]
                case _ if len(octets) >= 4:
                    octets[2:4] = min(len(octets), 0xFFFF).to_bytes(2)
        return bytes(octets)


def run(seconds: float) -> Figures:
    """Fuzzes for about so long. Raises Failed."""
    # What the service says about wrong packets is its business; here only counts matter.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    figures = asyncio.run(_mutate(seconds * (1 - GUIDED_SHARE)))
    each = max(1, int(seconds * GUIDED_SHARE / len(TARGETS)))
    for name in TARGETS:
        progress(f"coverage-guided: {name}, {each} s")
        runs, features = _guided(name, each)
        figures[f"guided_{name}_runs"] = runs
        figures[f"guided_{name}_features"] = features
    return figures


async def _mutate(seconds: float) -> Figures:
    seed = int(time.time())
    packets = Mutator(seed, seeds())
    others = {name: Mutator(seed, corpus(name)) for name in TARGETS if name != "codec"}
    unsigned, insider, tunnelled = Server(), Server(), Server()
    genuine = set(seeds())
    failed = metrics.DROPPED[Drop.FAILED]
    began = time.monotonic()
    sent = signed_sent = read = batches = sessions = 0
    memory: list[float] = []
    first_tenth = 0.0
    with closing(Batches()) as wire, Sessions(tunnelled.service, random.Random(seed), packets.change) as dtls:
        while (passed := time.monotonic() - began) < seconds:
            for _ in range(LOOK_EVERY):
                data = packets()
                if data[: int.from_bytes(data[2:4])] in genuine:
                    continue  # octets behind the Length change nothing: this packet is as genuine as ever
                _try(unsigned.receive, data, seed)
                sent += 1
                if sent % SIGNED_EVERY == 0 and (made := signed(data)) is not None:
                    _try(insider.receive, made, seed)
                    _try(codec, data, seed)
                    signed_sent += 1
                if sent % FILES_EVERY == 0:
                    for name, mutator in others.items():
                        _try(TARGETS[name], mutator(), seed)
                        read += 1
                if sent % BATCH_EVERY == 0:
                    _try(wire.carry, [(packets() * 20)[: 20 ** (number % 4)] for number in range(BATCH)], seed)
                    batches += 1
                if sent % SESSION_EVERY == 0:
                    _try(dtls.attack, [seeds()[0], packets(), signed(packets()) or b"", packets()], seed)
                    sessions += 1
            if unsigned.events:
                raise Failed(f"a packet with a wrong authenticator became an event (seed {seed})")
            if metrics.DROPPED[Drop.FAILED] != failed:
                raise Failed(f"a packet within DTLS made the service fail (seed {seed})")
            gc.collect()
            memory.append(resident())
            first_tenth = first_tenth or (memory[-1] if passed >= seconds / 10 else 0.0)
            if len(memory) % 20 == 0:
                progress(f"{sent:,} packets, {memory[-1]:.1f} MiB resident")
            await asyncio.sleep(0)
    growth = memory[-1] - (first_tenth or memory[0])
    if growth > MOST_GROWTH:
        raise Failed(f"resident memory grew by {growth:.1f} MiB after the first tenth (seed {seed})")
    if not insider.events:
        raise Failed("no signed packet became an event: the fuzzer does not reach what it should")
    return {
        "seed": seed,
        "mutated_packets": sent,
        "mutated_packets_per_s": round(sent / (time.monotonic() - began)),
        "exceptions": 0,
        "events_of_unsigned_packets": unsigned.events,
        "responses_to_unsigned_packets": unsigned.responses,
        "signed_mutated_packets": signed_sent,
        "events_of_signed_packets": insider.events,
        "inputs_of_other_readers": read,
        "batches_through_sockets": batches,
        "dtls_sessions": sessions,
        "dtls_sessions_established": dtls.established,
        "events_of_dtls_packets": tunnelled.events,
        "resident_after_a_tenth_mib": round(first_tenth or memory[0], 1),
        "resident_at_most_mib": round(max(memory), 1),
        "resident_at_the_end_mib": round(memory[-1], 1),
    }


def _try(target: Callable[[T], object], data: T, seed: int) -> None:
    try:
        target(data)
    except Exception as error:
        # Anything that escapes is what we are looking for.
        octets = data.hex() if isinstance(data, bytes) else repr(data)[:4000]
        raise Failed(f"{type(error).__name__}: {error} (seed {seed}) by the octets {octets}") from error


def corpus(name: str) -> list[bytes]:
    """What a target starts from."""
    match name:
        case "codec":
            return seeds()
        case "stream":
            return [size + b"".join(seeds()) for size in (b"\0\0", b"\0\x13", b"\x03\xe8")]
        case "hello":
            return [_hello(), _hello("radius/1.0"), _hello("radius/1.1", "radius/1.0")]
        case "control":
            info = struct.pack("@Nii4s4s4s4x", 28, socket.IPPROTO_IP, 8, bytes(4), b"\x7f\0\0\1", b"\x7f\0\0\1")
            return [info, info + struct.pack("@NiiI4x", 20, socket.SOL_SOCKET, 40, 7)]
    return _files(name)


def _hello(*alpn: str) -> bytes:
    """A ClientHello of OpenSSL's."""
    context = ssl.create_default_context()
    if alpn:
        context.set_alpn_protocols(alpn)
    here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(here, there, server_hostname="bridge.example.org").do_handshake()
    return there.read()


def _files(kind: str) -> list[bytes]:
    if kind == "dictionary":
        site = b"""VENDOR Wide 4711 format=2,2
BEGIN-VENDOR Wide
ATTRIBUTE Outer 300 tlv
ATTRIBUTE Inner 300.1 octets[5]
END-VENDOR Wide
"""
        return [site, *((directory() / f"dictionary.{name}").read_bytes() for name in ("rfc8045", "wispr", "rfc2868"))]
    frames = [bytes(12) + b"\x08\x00" + _ipv4(packet) for packet in seeds()[:3]]
    records = b"".join(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame for frame in frames)
    blocks = b"".join(_block(6, struct.pack("<IIIII", 0, 0, 0, len(frame), len(frame)) + frame) for frame in frames)
    section = _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + _block(1, struct.pack("<HHI", 1, 0, 0))
    return [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + records, section + blocks]


def _ipv4(payload: bytes) -> bytes:
    udp = struct.pack("!HHHH", 40000, 1813, 8 + len(payload), 0) + payload
    return struct.pack("!BBHHHBBH8s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, bytes(8)) + udp


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))


def _guided(name: str, seconds: int) -> tuple[int, int]:
    """Runs of a target and features of the code that they reached. Raises Failed."""
    with tempfile.TemporaryDirectory(prefix="rb-fuzz-") as folder:
        for number, octets in enumerate(corpus(name)):
            (Path(folder) / f"seed{number}").write_bytes(octets)
        argv = [sys.executable, "-m", "soak.guided", name, folder, f"-max_total_time={seconds}", "-max_len=4200"]
        argv += ["-print_final_stats=1", f"-artifact_prefix={folder}/", "-rss_limit_mb=512"]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 120, check=False)
        except subprocess.TimeoutExpired:
            raise Failed(f"the coverage-guided fuzzer of {name} did not end") from None
    if done.returncode != 0:
        raise Failed(f"{name}, coverage-guided:\n{(done.stdout + done.stderr)[-4000:]}")
    runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    features = re.findall(r"\bft: (\d+)", done.stderr)
    return int(runs[1]) if runs else 0, int(features[-1]) if features else 0


SOAK = Soak("fuzz", "mutated packets, files, streams, handshakes; nothing escapes, nothing is written", run)
