"""Names and kinds of the kernel's sets."""

from hypothesis import given
from hypothesis import strategies as st

from agent.dataplane.kinds import KINDS, TEMPORARY, Kind, is_ours, kind_of, kind_of_set, set_name
from radius_bridge.policy.members import parse_prefix

names = st.text(min_size=1, max_size=60)


@given(names, st.sampled_from(KINDS))
def test_a_name_fits_the_kernel_and_leaves_room_for_the_temporary(name: str, kind: Kind) -> None:
    made = set_name(kind, name)
    assert len((made + TEMPORARY).encode()) <= 31
    assert is_ours(made)
    assert kind_of_set(made) == kind
    assert is_ours(made + TEMPORARY)


@given(names, names)
def test_two_services_never_share_a_set(one: str, other: str) -> None:
    assert (set_name(KINDS[0], one) == set_name(KINDS[0], other)) == (one == other)


def test_a_long_name_is_hashed_and_not_cut_off() -> None:
    long = "a-service-with-a-very-long-name_tcp_8080"
    assert set_name(KINDS[0], long) != set_name(KINDS[0], long + "1")
    assert set_name(KINDS[0], "ssh_tcp_22") == "rb4h.ssh_tcp_22"
    # A hashed name holds what no plain name can, so a service cannot be called like another's hash.
    hashed = set_name(KINDS[0], long).removeprefix("rb4h.")
    assert set_name(KINDS[0], hashed) != f"rb4h.{hashed}"


def test_foreign_names_are_not_ours() -> None:
    assert not any(map(is_ours, ("rb", "rb4h.", "rb5h.x", "blocklist", "f2b-sshd", "xrb4h.ssh")))


def test_hosts_and_networks_of_each_ip_version_are_kept_apart_unless_they_are_joined() -> None:
    prefixes = [parse_prefix(each) for each in ("192.0.2.1", "192.0.2.0/31", "2001:db8::1", "2001:db8::/127")]
    assert [kind_of(each) for each in prefixes] == [*KINDS]
    assert [kind_of(each, joined=True) for each in prefixes] == [KINDS[1], KINDS[1], KINDS[3], KINDS[3]]
