"""FreeRADIUS' own codec (radclient) and ours agree, both ways, on every attribute that both know by name.

radclient writes attributes into a request that we read, and reads our answer, into which we wrote the same ones.
"""

import hashlib
import re
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from radius_bridge.radius.attributes import assign, unpack
from radius_bridge.radius.definitions import STRUCTURES, Definition
from radius_bridge.radius.dictionary import Dictionary, directory, standard
from radius_bridge.radius.packet import Attribute, Code, accounting_request, is_genuine, parse

pytestmark = pytest.mark.integration

FREERADIUS = Path("/usr/share/freeradius")
SECRET = b"a shared secret!"

SAMPLES = {
    "string": "naïve = text; 42",
    "octets": "0x00ff10",
    "integer": "4000000000",
    "byte": "200",
    "short": "60000",
    "signed": "-5",
    "date": "1700000000",
    "integer64": "18000000000000000000",
    "ipaddr": "192.0.2.1",
    "ipv6addr": "2001:db8::1",
    "ipv4prefix": "192.0.2.0/24",
    "ipv6prefix": "2001:db8::/48",
    "ifid": "0200:5eff:fe00:0001",
    "ether": "02:00:5e:00:00:01",
}

OWN_WAYS = {
    # radclient computes or hides these, or needs others beside them.
    "User-Password",
    "CHAP-Password",
    "Message-Authenticator",
    "Proxy-State",
    "EAP-Message",
    "Vendor-Specific",
    # FreeRADIUS 3.2 writes nothing of TLVs with a standard number, and reads them as Attr-173.3.
    "IPv6-6rd-IPv4MaskLen",
    "IPv6-6rd-Prefix",
    "IPv6-6rd-BR-IPv4-Address",
}

RENAMED = {
    # FreeRADIUS leaves these numbers to Ascend, or has another name for the number beside ours.
    *(each.name for each in standard() if each.name.startswith("Digest-")),
    "SIP-AOR",
    "HP-Nas-Filter-Rule",
}

SITE = """
VENDOR Lab-Wide 64711 format=2,2
BEGIN-VENDOR Lab-Wide
ATTRIBUTE Lab-Wide-Name 300 string
END-VENDOR Lab-Wide
VENDOR Lab-Bare 64712 format=1,0
BEGIN-VENDOR Lab-Bare
ATTRIBUTE Lab-Bare-Name 1 string
END-VENDOR Lab-Bare
VENDOR Lab-Going 64714 format=1,1,c
BEGIN-VENDOR Lab-Going
ATTRIBUTE Lab-Going-Text 1 octets
END-VENDOR Lab-Going
VENDOR Lab-Acme 64715
BEGIN-VENDOR Lab-Acme
ATTRIBUTE Lab-Acme-Outer 1 tlv
ATTRIBUTE Lab-Acme-Middle 1.2 tlv
ATTRIBUTE Lab-Acme-Inner 1.2.3 string
END-VENDOR Lab-Acme
BEGIN-VENDOR Lab-Acme format=Extended-Vendor-Specific-1
ATTRIBUTE Lab-Acme-Extended 1 string
END-VENDOR Lab-Acme
BEGIN-VENDOR Lab-Acme format=Extended-Vendor-Specific-5
ATTRIBUTE Lab-Acme-Long 1 octets
END-VENDOR Lab-Acme
ATTRIBUTE Long-Text 245.1 octets
"""


def sample(definition: Definition) -> str:
    """A value of the attribute as both write it."""
    if definition.size is not None:
        return f"0x{'a5' * definition.size}"
    if definition.tagged and definition.type.name == "integer":
        return next(iter(definition.values), "7")
    return next(iter(definition.values), SAMPLES[definition.type.name])


def both_know(ours: Dictionary, theirs: Dictionary) -> list[Definition]:
    names = {each.name for each in theirs}
    return [
        each
        for each in ours
        if each.name in names
        and theirs[each.name].path == each.path
        and theirs.name(each.path) == each.name
        and each.type.name not in STRUCTURES
        and not each.hidden
        and each.name not in OWN_WAYS
    ]


def freeradius_dictionary() -> Dictionary:
    """What FreeRADIUS' files say about the attributes of packets."""
    included = re.findall(r"^\$INCLUDE\s+(\S+)", (FREERADIUS / "dictionary").read_text(), re.MULTILINE)
    # Not: attributes inside the server, old names, and what vendors made of numbers that are the RFCs' now.
    apart = {"dictionary.freeradius.internal", "dictionary.compat", "dictionary.freeradius.evs5"}
    apart |= {name for name in included if name.endswith((".illegal", ".conflict"))}
    files = sorted(set(included) - apart, key=lambda name: ("rfc" not in name, name))
    return Dictionary(*(FREERADIUS / name for name in files))


def exchange(folder: Path, dictionary: Dictionary, texts: list[str]) -> tuple[list[str], list[str]]:
    """What we read of what radclient wrote, and what radclient read of what we wrote, as NAME = VALUE."""
    (folder / "dictionary").write_text(f"$INCLUDE {FREERADIUS}/dictionary\n{SITE}")
    (folder / "secret").write_bytes(SECRET + b"\n")
    quoted = [re.sub(r"^(\S+) = (?!0x)(.*)$", r'\1 = "\2"', text) for text in texts]
    (folder / "request").write_text("\n".join(quoted) + "\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        argv = ["radclient", "-x", "-r", "1", "-t", "5", "-D", str(folder)]
        argv += ["-S", str(folder / "secret"), "-f", str(folder / "request")]
        argv += [f"127.0.0.1:{server.getsockname()[1]}", "acct"]
        with subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"TZ": "UTC", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        ) as radclient:
            try:
                data, peer = server.recvfrom(4096)
            except TimeoutError:
                radclient.kill()
                pytest.fail(f"radclient sent nothing:\n{radclient.communicate()[0]}")
            packet = parse(data)
            assert is_genuine(packet, SECRET)
            ours = []
            for leaf in unpack(packet.attributes, dictionary):
                tag, _ = leaf.split_tag()
                ours.append(f"{dictionary.name(leaf.path)}{'' if tag is None else f':{tag}'} = {leaf.show()}")
            server.sendto(response(data, [pair for text in texts for pair in assign(text, dictionary)]), peer)
            output, _ = radclient.communicate(timeout=15)
    received = output.partition("Received Accounting-Response")[2]
    assert received, output
    theirs = [normal(line.strip(), dictionary) for line in received.splitlines()[1:] if line.startswith("\t")]
    return ours, theirs


def response(request: bytes, attributes: list[Attribute]) -> bytes:
    """An Accounting-Response with attributes; our own has none but Proxy-State."""
    body = accounting_request(0, attributes, SECRET)[20:]
    head = bytes((Code.ACCOUNTING_RESPONSE, request[1])) + (20 + len(body)).to_bytes(2)
    return head + hashlib.md5(head + request[4:20] + body + SECRET, usedforsecurity=False).digest() + body


def normal(line: str, dictionary: Dictionary) -> str:
    """A line as FreeRADIUS prints attributes, in our form."""
    name, _, value = line.partition(" = ")
    value = value.removeprefix('"').removesuffix('"')
    definition = dictionary[name.partition(":")[0]]
    if definition.type.name == "date":
        value = str(int(datetime.strptime(value, "%b %d %Y %H:%M:%S UTC").replace(tzinfo=UTC).timestamp()))
    elif not value.startswith("0x"):
        # Both are right ways to write addresses and groups of digits: ours decides.
        value = definition.show(definition.decode(definition.encode(value)))
    return f"{name} = {value}"


def test_names_numbers_and_types_are_freeradius_own() -> None:
    theirs = freeradius_dictionary()
    known = {each.name: each for each in theirs}
    unlike = {
        each.name: (each, known.get(each.name))
        for each in standard()
        if each.name not in RENAMED
        and (
            each.name not in known
            or (each.path, each.type.name, each.size, each.tagged, each.concatenated, each.hidden)
            != (
                known[each.name].path,
                known[each.name].type.name,
                known[each.name].size,
                known[each.name].tagged,
                known[each.name].concatenated,
                known[each.name].hidden,
            )
        )
    }
    assert unlike == {}
    values = [(each.name, name, value) for each in standard() for name, value in each.values.items()]
    assert len(values) > 150
    assert [
        (name, value_name, value)
        for name, value_name, value in values
        if name not in RENAMED and known[name].values.get(value_name) != value
    ] == []


def test_all_attributes_by_name_both_ways(tmp_path: Path) -> None:
    shared = both_know(standard(), freeradius_dictionary())
    assert len(shared) > 500
    texts = [f"{each.name}{':1' if each.tagged else ''} = {sample(each)}" for each in shared]
    while texts:
        some, texts = texts[:60], texts[60:]
        ours, theirs = exchange(tmp_path, standard(), some)
        assert ours == some
        assert theirs == some


@pytest.mark.parametrize(
    "texts",
    [
        ["Lab-Wide-Name = a wide one", "User-Name = alice", "Lab-Wide-Name = another"],
        ["Lab-Bare-Name = all the rest"],
        ["Lab-Acme-Inner = nested twice"],
        ["Lab-Acme-Extended = extended", "Response-Length = 4096"],
        [f"Long-Text = 0x{'ab' * 480}", "User-Name = alice"],
        [f"Lab-Acme-Long = 0x{'cd' * 480}"],
        [f"Lab-Going-Text = 0x{'ef' * 246}", "User-Name = alice"],
        ["Tunnel-Type:3 = VLAN", "Tunnel-Medium-Type:3 = IEEE-802", "Tunnel-Private-Group-Id:3 = 42"],
        [f"EAPoL-Announcement = 0x{'01' * 300}", "User-Name = alice"],
    ],
    ids=lambda texts: texts[0].partition(" ")[0],
)
def test_vendors_layouts_nesting_and_long_values_both_ways(tmp_path: Path, texts: list[str]) -> None:
    site = tmp_path / "dictionary.site"
    site.write_text(SITE)
    ours, theirs = exchange(tmp_path, Dictionary(directory() / "dictionary", site), texts)
    assert ours == texts
    assert theirs == texts


def test_freeradius_reads_what_we_wrote_in_pieces(tmp_path: Path) -> None:
    # It cannot write this itself: it cuts the value at 246 octets.
    site = tmp_path / "dictionary.site"
    site.write_text(SITE)
    texts = [f"Lab-Going-Text = 0x{'ef' * 480}", "User-Name = alice"]
    assert exchange(tmp_path, Dictionary(directory() / "dictionary", site), texts)[1] == texts
