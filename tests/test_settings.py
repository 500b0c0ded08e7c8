"""The bridge's configuration file: what is wrong is told with file, key, value and what is allowed."""

from pathlib import Path

import pytest

from radius_bridge.configfile import ConfigError, read
from radius_bridge.policy.members import parse_prefix
from radius_bridge.radius.addresses import DEFAULT
from radius_bridge.radius.attributes import assign
from radius_bridge.radius.dictionary import standard
from radius_bridge.settings import Settings

LEASE = """
[[lease]]
name = "dhcp"
networks = ["10.0.0.0/8"]
"""

CLIENT = """
[[client]]
name = "campus"
address = "198.51.100.0/24"
secret = "a shared secret!"
networks = ["10.0.0.0/8"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "radius-bridge.toml"


def settings(file: Path, text: str) -> Settings:
    file.write_text(text)
    return read(file, Settings)


def test_the_least_that_is_needed(file: Path) -> None:
    made = settings(file, CLIENT)
    assert made.radius.listen == (("0.0.0.0", 1813), ("::", 1813))
    assert made.radius.default_lease == 8 * 3600
    assert made.rules().longest == 24 * 3600
    assert made.metrics is None
    assert made.consul.root == "befw"
    found = made.clients().at(4, parse_prefix("198.51.100.7").number)
    assert found is not None
    assert (found.name, found.secret, found.realms, found.lease) == ("campus", b"a shared secret!", None, None)
    assert parse_prefix("10.1.2.3") in found.networks
    assert parse_prefix("11.1.2.3") not in found.networks


def test_all_that_can_be_said(file: Path) -> None:
    made = settings(
        file,
        """
        [consul]
        url = "http://127.0.0.1:8501"
        [radius]
        listen = ["127.0.0.1:18130", "[::1]:18130"]
        default_lease = "1h30m"
        longest_lease = "2h"
        shared = ["10.66.0.0/16", "2001:db8::1"]
        [metrics]
        listen = "127.0.0.1:9813"
        [[client]]
        name = "campus"
        address = "2001:db8::/32"
        secret = "a shared secret!"
        networks = ["10.0.0.0/8", "2001:db8::/32"]
        realms = ["Example.ORG", ""]
        lease = 600
        """,
    )
    assert made.radius.listen == (("127.0.0.1", 18130), ("::1", 18130))
    assert made.rules().default_lease == 5400
    assert made.rules().longest == 7200
    assert parse_prefix("10.66.1.1") in made.rules().shared
    assert made.metrics is not None
    assert made.metrics.listen == ("127.0.0.1", 9813)
    client = made.client[0].client()
    assert client.realms == frozenset({"example.org", ""})
    assert client.lease == 600


def test_the_example_is_right_but_for_the_secret_that_is_not_there() -> None:
    example = Path(__file__).parent.parent / "config/bridge/radius-bridge.toml"
    with pytest.raises(ConfigError) as caught:
        read(example, Settings)
    problem = "secret_file /etc/radius-bridge/campus-proxy.secret cannot be read: No such file or directory"
    assert str(caught.value) == f"{example}: client[0]: {problem}"


def test_every_line_of_the_example_is_right_when_it_is_switched_on(file: Path, tmp_path: Path) -> None:
    example = Path(__file__).parent.parent / "config/bridge/radius-bridge.toml"
    secret = tmp_path / "secret"
    secret.write_text("a-shared-secret!\n")
    secret.chmod(0o600)
    lines = []
    for line in example.read_text().splitlines():
        switched = line.removeprefix("# ")
        is_setting = switched.startswith(("[", "]", "  ")) or " = " in switched
        lines.append(switched if is_setting else line)
    (tmp_path / "dictionary.site").write_text("ATTRIBUTE Badge 224 string\n")
    text = "\n".join(lines).replace("/etc/radius-bridge/campus-proxy.secret", str(secret))
    text = text.replace("/etc/radius-bridge/lease-token", str(secret))
    made = settings(file, text.replace("/etc/radius-bridge/dictionaries", str(tmp_path)))
    assert made.radius.addresses == DEFAULT  # the example shows what holds anyway
    assert made.datacenters.urls == {"dc2": "https://consul.dc2.example.org:8501"}
    assert made.metrics is not None
    assert made.client[0].lease == 12 * 3600
    users = made.rules().users
    told = ("User-Name=anonymous", "Class=0x" + b"user=Corp\\Alice".hex(), "Filter-Id=staff")
    pairs = [pair for text in told for pair in assign(text, standard())]
    assert users.read(pairs, "").named.user == "alice@corp.example.org"
    assert users.read(pairs, "").groups == ("radius.staff",)
    assert [each.type for each in made.lease] == ["kea", "dnsmasq", "push"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name =", "nam =", "client[0].nam: no such key (did you mean name?); allowed here: name, address,"),
        ("[[client]]", "[radios]\n[[client]]", "radios: no such key (did you mean radius?); allowed here: consul,"),
        ("[[client]]", '[radius]\nlisen = ""\n[[client]]', "radius.lisen: no such key (did you mean listen?)"),
        ("networks", "realms = []\nnetworks", "client[0].realms: write at least one"),
        ('name = "campus"', "", "client[0].name: is missing"),
        ("[[client]]", '[radius]\naddresses = ["Nobody"]\n[[client]]', "radius.addresses: Nobody: the dictionaries"),
        ("[[client]]", '[radius]\naddresses = ["Class"]\n[[client]]', "radius.addresses: Class has type octets: add"),
        ("[[client]]", "[radius]\naddresses = [7]\n[[client]]", "radius.addresses[0] = 7: write the name of an attr"),
        ("[[client]]", LEASE + 'type = "bind"\n[[client]]', "lease[0].type = 'bind': Input should be 'kea', 'dns"),
        ("[[client]]", LEASE + 'type = "kea"\n[[client]]', "lease[0]: a source of type 'kea' needs path or contr"),
        (
            "[[client]]",
            LEASE + 'type = "push"\npath = "/tmp/x"\n[[client]]',
            "lease[0]: a source of type 'push' needs allowed and listen and token_file, not path",
        ),
        (
            "[[client]]",
            LEASE + 'type = "push"\nlisten = "127.0.0.1:1"\ntoken_file = "/dev/null"\nallowed = ["::1"]\n[[client]]',
            "lease[0]: token_file /dev/null can be read by everybody",
        ),
        (
            "[[client]]",
            (LEASE + 'type = "kea"\npath = "/x"\n') * 2 + "[[client]]",
            "lease[1].name = 'dhcp': lease[0] has it too; each needs its own; lease[1].path = '/x'",
        ),
        (
            "[[client]]",
            '[radius]\naddresses = [{ attribute = "User-Name", pattern = "(" }]\n[[client]]',
            "radius.addresses[0]: User-Name: '(' is no regular expression: ",
        ),
        (
            "[[client]]",
            '[radius]\naddresses = [{ attribute = "User-Name", pattern = "x" }]\n[[client]]',
            "radius.addresses: User-Name: a pattern needs text (type string) and a group for the address",
        ),
        (
            "[[client]]",
            '[radius]\ndictionaries = ["/not/there"]\n[[client]]',
            "radius.dictionaries: /not/there: cannot be read: No such file or directory",
        ),
        ("[[client]]", "[names]\nsources = []\n[[client]]", "names.sources: write at least one"),
        ("[[client]]", '[names]\nsources = ["Nobody"]\n[[client]]', "names.sources: Nobody: the dictionaries know no"),
        ("[[client]]", '[names]\nsources = ["NAS-Port"]\n[[client]]', "names.sources: NAS-Port has type integer"),
        ("[[client]]", '[names]\nmachine = "bind"\n[[client]]', "names.machine: no such key (did you mean machines?)"),
        ("[[client]]", '[names]\nmachines = "yes"\n[[client]]', "names.machines = 'yes': Input should be 'nobody' or"),
        ("[[client]]", '[names]\nnever = ["@x"]\n[[client]]', "names.never: '@x': write name, for any realm, or name"),
        ("[[client]]", '[names]\nrealms = {"a@b" = ""}\n[[client]]', "names.realms: 'a@b': write the realm alone"),
        ("[[client]]", '[[group]]\ngroup = "staff"\n[[client]]', "group[0].group = 'staff': write radius.NAME, such"),
        ("[[client]]", '[[group]]\ngroup = "radius.a"\n[[client]]', "group[0].attribute: is missing"),
        (
            "[[client]]",
            '[[group]]\ngroup = "radius.a"\nattribute = "Class"\n[[client]]',
            "group[0]: set exactly one of value and pattern",
        ),
        (
            "[[client]]",
            '[[group]]\ngroup = "radius.a"\nattribute = "Class"\npattern = "("\n[[client]]',
            "group[0].pattern = '(': '(' is no regular expression: ",
        ),
        (
            "[[client]]",
            '[[group]]\ngroup = "radius.a"\nattribute = "Clas"\nvalue = "x"\n[[client]]',
            "group[0].attribute: Clas: the dictionaries know no attribute of this name",
        ),
        ("networks", 'groups = ["radius.a"]\nnetworks', "client[0].groups: no [[group]] makes radius.a"),
        ("[[client]]", '[consul]\nurl = "http://me:sesame@c:8500"\n[[client]]', "consul.url: write scheme"),
        ('"campus"', '"a b"', "client[0].name = 'a b': String should match pattern"),
        ('"campus"', "7", "client[0].name = 7: Input should be a valid string"),
        ('"198.51.100.0/24"', '"here"', "client[0].address = 'here': write an address or a network, such as"),
        ('"198.51.100.0/24"', '"198.51.100.1/24"', "client[0].address = '198.51.100.1/24': write an address"),
        ('"198.51.100.0/24"', "1", "client[0].address = 1: write an address or a network as text"),
        ('["10.0.0.0/8"]', '["10.0.0.0/8", "10"]', "client[0].networks[1] = '10': write an address"),
        ('["10.0.0.0/8"]', "[]", "client[0].networks: write at least one"),
        ('networks = ["10.0.0.0/8"]', "", "client[0].networks: is missing"),
        ("networks", 'realms = ["@a"]\nnetworks', "client[0].realms[0] = '@a': write what follows the @"),
        ("networks", 'lease = "1y"\nnetworks', "client[0].lease = '1y': '1y' is no duration: write seconds"),
        ("networks", "lease = 0\nnetworks", "client[0].lease = 0: '0' is out of range"),
        ("networks", "lease = 1.5\nnetworks", "client[0].lease = 1.5: write seconds (3600) or a duration (8h)"),
        ("networks", "lease = true\nnetworks", "client[0].lease = True: write seconds"),
        ("[[client]]", '[radius]\nlisten = ["x:1"]\n[[client]]', "radius.listen[0] = 'x:1': write a numeric"),
        ("[[client]]", '[radius]\nlisten = ["::1:1813"]\n[[client]]', "radius.listen[0] = '::1:1813': write"),
        ("[[client]]", '[radius]\nlisten = ["1.2.3.4:65536"]\n[[client]]', "such as 0.0.0.0:1813 or [::]:1813"),
        ("[[client]]", '[consul]\nurl = "consul"\n[[client]]', "consul.url = 'consul': write scheme, host and port"),
        ("[[client]]", '[consul]\nrot = "x"\n[[client]]', "consul.rot: no such key (did you mean root?)"),
        (
            "[[client]]",
            '[datacenters]\ncopies = ["dc2"]\nurls.dc3 = "https://consul:8501"\n[[client]]',
            "datacenters: urls names dc3: add it to copies, or take it out",
        ),
        (
            "[[client]]",
            '[datacenters]\ncopies = ["dc2"]\nurls.dc2 = "consul:8501"\n[[client]]',
            "datacenters.urls.dc2 = 'consul:8501': write scheme, host and port",
        ),
        ('secret = "a shared secret!"', "", "client[0]: there is no secret: set exactly one of secret_file,"),
        ('secret = "a shared secret!"', 'secret = ""', "client[0]: secret is empty: use 8 or more"),
        ('secret = "a shared secret!"', 'secret = "short"', "client[0]: secret has 5 octets: use 8 or more"),
        ('secret = "a', 'secret_env = "X"\nsecret = "a', "client[0]: secret and secret_env are set: set exactly one"),
        ('secret = "a shared secret!"', 'secret_env = "NOT_SET_X"', "client[0]: secret_env NOT_SET_X is empty"),
        ('secret = "a shared secret!"', "secret = 12345678", "client[0].secret: Input should be a valid string"),
        (CLIENT, "", "client: is missing"),
        (CLIENT, CLIENT + CLIENT, "client[1].name = 'campus': client[0] has it too; each needs its own; "),
        (CLIENT, CLIENT + CLIENT, "client[1].address = '198.51.100.0/24': client[0] has it too"),
        ("[[client]]", "[[client]", "is not TOML"),
        ("[[client]]", "[[client]]\nx = ", "(at line 3, column 5)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(file: Path, old: str, new: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(file, CLIENT.replace(old, new, 1))
    assert expected in str(caught.value)
    assert all(line.startswith(f"{file}: ") for line in str(caught.value).splitlines())


def test_all_that_is_wrong_is_told_at_once(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(file, "[radius]\ndefault_lease = 0\n" + CLIENT.replace("10.0.0.0/8", "x").replace("name", "nam"))
    assert len(str(caught.value).splitlines()) == 4  # lease, network, the unknown key, the missing one


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot be read: No such file"):
        read(tmp_path / "missing.toml", Settings)
    (tmp_path / "latin.toml").write_bytes(b'name = "J\xfcrgen"')
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read(tmp_path / "latin.toml", Settings)


@pytest.mark.parametrize(
    "line", ['secret = "s3cr3t"', 'secrt = "s3cr3t-s3cr3t"', 'secret = ["s3cr3t"]', 'secret = "s3cr3t-s3cr3t"\nx = 1']
)
def test_no_secret_is_ever_shown(file: Path, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(file, CLIENT.replace('secret = "a shared secret!"', line))
    assert "s3cr3t" not in str(caught.value)


def test_settings_do_not_show_secrets(file: Path) -> None:
    made = settings(file, CLIENT)
    assert "a shared secret" not in repr(made) + repr(made.client[0].client())


def test_a_secret_comes_from_a_file_without_its_line_end(file: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b" from a file \r\n")
    secret.chmod(0o640)
    text = CLIENT.replace('secret = "a shared secret!"', f'secret_file = "{secret}"')
    assert settings(file, text).client[0].read_secret() == b" from a file "

    secret.chmod(0o644)
    with pytest.raises(ConfigError, match=r"secret can be read by everybody: chmod 640"):
        read(file, Settings)


def test_a_secret_comes_from_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPUS_SECRET", "from the environment")
    text = CLIENT.replace('secret = "a shared secret!"', 'secret_env = "CAMPUS_SECRET"')
    assert settings(file, text).client[0].read_secret() == b"from the environment"
