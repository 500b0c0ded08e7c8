"""What BEFW has programmed is recognized, and what would be open without it is named."""

from agent.befw import Closed, only_in_table, read_save
from radius_bridge.policy.services import parse_ports

OURS = Closed([parse_ports("22"), parse_ports("8000:8100/udp")], {"rules_allow", "rules_deny", "lan"}, everything=False)

SAVED = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:BEFW - [0:0]
:BEFW-OTHER - [0:0]
-A INPUT -j BEFW
-A INPUT -i lo -j ACCEPT
-A INPUT -m set --match-set lan src -j ACCEPT
-A BEFW -m set --match-set rules_allow src -j ACCEPT
-A BEFW -m set --match-set rules_deny src -j REJECT --reject-with icmp-port-unreachable
-A BEFW -m set --match-set lan src -j DROP
-A BEFW -m set --match-set lan_v6 src -j DROP
-A BEFW -p tcp -m tcp --dport 22 -m set --match-set ssh_tcp_22 src -j ACCEPT
-A BEFW -p tcp -m tcp --dport 22 -j DROP
-A BEFW -p udp -m multiport --dports 8000,8050:8100 -j DROP
-A BEFW -m set --match-set ssh_tcp_22 src -j NFLOG --nflog-group 402
-A BEFW-OTHER -j BEFW-OTHER2
COMMIT
"""


def closed_only_there(*rules: str, ours: Closed = OURS) -> list[str]:
    """What a chain with these rules closes beyond us."""
    chain = read_save("\n".join([":BEFW - [0:0]", *rules]), "BEFW")
    assert chain is not None
    return chain.only_there(ours)


def test_its_chain_its_jumps_and_the_sets_that_nobody_else_uses() -> None:
    chain = read_save(SAVED, "BEFW")
    assert chain is not None
    assert chain.jumps == ("-A INPUT -j BEFW",)
    assert len(chain.rules) == 8
    assert chain.sets == ("rules_allow", "rules_deny", "lan_v6", "ssh_tcp_22")
    assert chain.only_there(OURS) == []
    assert chain.removal() == "*filter\n:BEFW - [0:0]\n-D INPUT -j BEFW\n-X BEFW\nCOMMIT\n"


def test_a_host_without_it() -> None:
    assert read_save(SAVED.replace("BEFW", "OTHER"), "BEFW") is None


def test_what_it_closes_and_we_do_not_is_named() -> None:
    assert "23/tcp" in closed_only_there("-A BEFW -p tcp -m tcp --dport 23 -j DROP")[0]
    assert "22/udp" in closed_only_there("-A BEFW -p udp -m udp --dport 22 -j DROP")[0]
    assert "8000:8101/udp" in closed_only_there("-A BEFW -p udp -m udp --dport 8000:8101 -j REJECT")[0]
    assert closed_only_there("-A BEFW -m set --match-set guests src -j DROP")
    assert closed_only_there("-A BEFW -m set --match-set landlords src -j DROP"), "not the set called lan"
    assert closed_only_there("-A BEFW -j DROP")
    assert closed_only_there("-A BEFW -p tcp -m tcp --dport 23 -j SOMEWHERE")
    assert "routed" in closed_only_there("-A FORWARD -j BEFW")[0]


def test_a_closed_host_closes_all_that_comes_to_it() -> None:
    ours = Closed([], (), everything=True)
    assert closed_only_there("-A BEFW -j DROP", "-A BEFW -p tcp -m tcp --dport 23 -j DROP", ours=ours) == []
    assert closed_only_there("-A FORWARD -j BEFW", ours=ours)


def test_its_table_of_nftables() -> None:
    listing = """\
table inet befw {
	set ip4_rules_deny {
		type ipv4_addr
	}
	chain filter {
		type filter hook input priority filter; policy accept;
		ip saddr @ip4_rules_deny reject
		ip6 saddr @ip6_guests drop
		ip saddr @ip4_ssh tcp dport { 22 } accept
	}
}
"""
    assert only_in_table(listing, OURS) == ["what this refuses: ip6 saddr @ip6_guests drop"]
    assert only_in_table("", OURS) == []
