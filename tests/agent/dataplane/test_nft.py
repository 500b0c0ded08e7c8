"""What is read from nft, and what is given to it."""

from dataclasses import replace

from agent.dataplane import nft_rules
from agent.dataplane.nft import install_text, read_listing, sets_text
from agent.desired import ALLOW, DENY, CustomSet, Desired, Failsafe, Posture, Target
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import parse_prefix
from radius_bridge.policy.services import Service, parse_ports

RULESET = """\
table inet theirs {
	chain input {
		type filter hook input priority filter; policy drop;
	}
}
table inet radius_bridge {
	counter refused.ssh_tcp_22 {
		packets 7 bytes 420
	}

	set rb4h.ssh_tcp_22 {
		type ipv4_addr
		flags timeout
	}

	chain input {
		type filter hook input priority filter - 10; policy accept;
		counter packets 5 bytes 100 jump old
	}

	chain old {
	}
}
"""
SSH = Service("ssh_tcp_22", (parse_ports("22"),))
WEB = Service("web_tcp_80", tuple(map(parse_ports, ("80", "8000:8010", "443/udp"))))


def test_only_our_table_is_read_and_counts_are_no_part_of_the_rules() -> None:
    found = read_listing(RULESET)
    assert found.names("chain") == ["input", "old"]
    assert found.counts == {"refused.ssh_tcp_22": 7}
    assert found == read_listing(RULESET.replace("packets 7", "packets 8").replace("packets 5", "packets 6"))
    assert found != read_listing(RULESET.replace("jump old", "accept"))
    assert found != read_listing(RULESET.replace("bridge {", "bridge {\n\tflags dormant"))
    assert read_listing("") == read_listing(RULESET.replace("radius_bridge", "others"))


def test_rules_are_in_place_if_no_chain_was_emptied_and_the_table_is_awake() -> None:
    desired = Desired((SSH, WEB), {SSH.name: {}, WEB.name: {}, ALLOW: {}, DENY: {}})
    text = "\n".join(nft_rules.render(desired))
    assert read_listing(text).is_in_place
    assert not read_listing(RULESET).is_in_place
    assert not read_listing(text.replace("bridge {", "bridge {\n\tflags dormant")).is_in_place
    whole = read_listing(text)
    for key, lines in whole.objects.items():
        if key[0] == "chain":
            emptied = tuple(line for line in lines if line.startswith("type "))
            assert not replace(whole, objects={**whole.objects, key: emptied}).is_in_place


def test_chains_are_emptied_before_what_is_gone_is_deleted() -> None:
    text = install_text(["table inet radius_bridge {", "\tchain new {", "\t}", "}"], read_listing(RULESET))
    assert text.splitlines()[:5] == [
        "flush chain inet radius_bridge input",
        "flush chain inet radius_bridge old",
        "delete chain inet radius_bridge input",
        "delete chain inet radius_bridge old",
        "delete counter inet radius_bridge refused.ssh_tcp_22",
    ]
    assert "set" not in text


def test_a_chain_that_hangs_elsewhere_is_made_anew_and_one_in_its_place_is_not() -> None:
    lines = [
        "table inet radius_bridge {",
        "\tchain input {",
        "\t\ttype filter hook input priority filter - 10; policy accept;",
    ]
    before = read_listing(RULESET)
    assert "delete chain inet radius_bridge input" not in install_text([*lines, "\t}", "}"], before)
    moved = read_listing(RULESET.replace("priority filter -", "priority filter +"))
    assert "delete chain inet radius_bridge input" in install_text([*lines, "\t}", "}"], moved)


def test_a_set_that_is_declared_otherwise_is_wrong() -> None:
    declared = {name: text for name, text in nft_rules.declarations([SSH.name]).items() if name == "rb4h.ssh_tcp_22"}
    assert read_listing(RULESET).wrong_sets(declared) == {}
    assert read_listing(RULESET.replace("ipv4_addr", "ipv6_addr")).wrong_sets(declared) == declared
    assert sets_text(declared) == (
        "add table inet radius_bridge\nadd set inet radius_bridge rb4h.ssh_tcp_22 { type ipv4_addr; flags timeout; }\n"
    )


def _chain(desired: Desired, name: str) -> list[str]:
    return list(read_listing("\n".join(nft_rules.render(desired))).objects["chain", name])


def test_the_number_of_services_costs_no_rule_on_the_way() -> None:
    few, many = (
        Desired((SSH,), {}),
        Desired(tuple(Service(f"s_tcp_{n}", (parse_ports(str(n)),)) for n in range(1, 200)), {}),
    )
    for chain in ("input", "output", "forward", "published", "reply", "from_overrides", "to_overrides"):
        assert len(_chain(few, chain)) == len(_chain(many, chain))


def test_overrides_are_looked_up_while_there_is_an_address_in_them() -> None:
    assert "meta nfproto @overridden jump from_overrides" in _chain(Desired((SSH,), {}), "input")
    assert "meta nfproto @overridden jump to_overrides" in _chain(Desired((SSH,), {}), "output")
    posture = Posture(sets=(CustomSet("bad", Target.DROP), CustomSet("kept", Target.NONE)))
    somebody = {parse_prefix("192.0.2.1"): NEVER}
    for name in (ALLOW, DENY, "bad"):
        assert nft_rules.is_overridden(Desired((SSH,), {name: somebody}, (), posture))
    for name in (SSH.name, "kept"):
        assert not nft_rules.is_overridden(Desired((SSH,), {name: somebody, DENY: {}}, (), posture))


def test_one_map_by_port_leads_to_the_services_chain() -> None:
    rules = _chain(Desired((SSH, WEB), {}), "input")
    assert rules[-4:-2] == [
        "tcp dport vmap { 22 : goto from.ssh_tcp_22, 80 : goto from.web_tcp_80, 8000-8010 : goto from.web_tcp_80 }",
        "udp dport vmap { 443 : goto from.web_tcp_80 }",
    ]
    assert _chain(Desired((SSH, WEB), {}), "from.ssh_tcp_22") == [
        "ip saddr @rb4h.ssh_tcp_22 accept",
        "ip saddr @rb4n.ssh_tcp_22 accept",
        "ip6 saddr @rb6h.ssh_tcp_22 accept",
        "ip6 saddr @rb6n.ssh_tcp_22 accept",
        'ct state new counter name "refused.ssh_tcp_22"',
        "goto from_refuse",
    ]


def test_what_the_map_does_not_find_while_rules_are_written_anew_is_led_there_by_rules() -> None:
    desired = Desired((SSH, WEB), {})
    assert _chain(desired, "input")[-2:] == [
        "tcp dport { 22, 80, 8000-8010 } goto again.input",
        "udp dport 443 goto again.input",
    ]
    assert _chain(desired, "again.input") == [
        "tcp dport 22 goto from.ssh_tcp_22",
        "tcp dport 80 goto from.web_tcp_80",
        "tcp dport 8000-8010 goto from.web_tcp_80",
        "udp dport 443 goto from.web_tcp_80",
    ]


def test_failsafe_networks_inside_others_are_left_out() -> None:
    networks = tuple(map(parse_prefix, ("10.0.0.0/8", "10.1.0.0/16", "192.0.2.1", "fd00::/8")))
    rules = _chain(Desired((SSH,), {}, (Failsafe(networks, SSH.ports),)), "input")
    assert rules[2:4] == [
        "ip saddr { 10.0.0.0/8, 192.0.2.1 } tcp dport 22 accept",
        "ip6 saddr fd00::/8 tcp dport 22 accept",
    ]
