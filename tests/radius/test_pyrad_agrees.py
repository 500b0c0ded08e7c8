"""pyrad, an independent reader of dictionaries and packets, and ours agree on what it supports, both ways."""

from pyrad.dictionary import Dictionary as PyradDictionary
from pyrad.packet import AcctPacket

from radius_bridge.radius.attributes import assign, unpack
from radius_bridge.radius.definitions import Definition
from radius_bridge.radius.dictionary import directory, standard
from radius_bridge.radius.packet import accounting_request, is_genuine, parse

SECRET = b"a shared secret!"

SAMPLES = {
    "string": "naïve = text",
    "octets": "0x00ff10",
    "integer": "4000000000",
    "byte": "200",
    "short": "60000",
    "date": "1700000000",
    "integer64": "18000000000000000000",
    "ipaddr": "192.0.2.1",
    "ipv6addr": "2001:db8::1",
    "ipv6prefix": "2001:db8::/48",
}
"""What both write alike; of other types there are few, and FreeRADIUS judges those."""

THEIRS = PyradDictionary(str(directory() / "dictionary"))


def both_know() -> list[Definition]:
    return [
        each
        for each in standard()
        if each.name in THEIRS
        and each.type.name in SAMPLES
        and THEIRS[each.name].type == each.type.name
        and len(each.path) in (1, 3)
        and not (each.size or each.hidden or each.tagged or each.concatenated or each.values)
        and each.name not in ("Message-Authenticator", "CHAP-Password")
    ]


def test_names_and_numbers_are_the_same() -> None:
    for name, attribute in THEIRS.attributes.items():
        assert standard()[name].number == attribute.code
        assert standard()[name].type.name == attribute.type


def test_pyrad_reads_what_we_wrote_and_we_what_pyrad_wrote() -> None:
    shared = both_know()
    assert len(shared) > 350
    while shared:
        some, shared = shared[:50], shared[50:]
        texts = [f"{each.name}={SAMPLES[each.type.name]}" for each in some]
        data = accounting_request(1, [pair for text in texts for pair in assign(text, standard())], SECRET)
        theirs = AcctPacket(packet=data, secret=SECRET, dict=THEIRS)
        assert theirs.VerifyAcctRequest()

        again = AcctPacket(id=1, secret=SECRET, dict=THEIRS)
        for each in some:
            (value,) = theirs[each.name]
            assert _as_we_write_it(value) == SAMPLES[each.type.name]
            again.AddAttribute(each.name, value)
        packet = parse(again.RequestPacket())
        assert is_genuine(packet, SECRET)
        read = [f"{standard().name(leaf.path)}={leaf.show()}" for leaf in unpack(packet.attributes, standard())]
        assert sorted(read) == sorted(texts)


def _as_we_write_it(value: object) -> str:
    return f"0x{value.hex()}" if isinstance(value, bytes) else str(value)
