"""Packets out of a stream of octets (RFC 6613 §2.6.1): one behind the other, by their Length. Pure."""

from collections.abc import Iterator

from radius_bridge.radius.packet import HEADER, MAX_LENGTH, Malformed


class Frames:
    """What has come of a packet that is not whole yet; never more than one packet and what was fed last."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Takes the next octets; gives the packets that are whole with them.

        Raises Malformed for a Length that no packet has: then nobody knows where the next packet begins.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 4:
            length = int.from_bytes(buffer[2:4])
            if not HEADER <= length <= MAX_LENGTH:
                raise Malformed(f"a Length of {length} is not within {HEADER}..{MAX_LENGTH}", 2)
            if len(buffer) < length:
                return
            packet = bytes(buffer[:length])
            del buffer[:length]
            yield packet
