"""Each configuration of config/freeradius, with a real FreeRADIUS, before a real bridge and Consul."""

import pytest

from tests.lab.forwarding import BRIDGE_PORT, RADSEC_PORT, SECRET, Host
from tests.lab.processes import run, wait_until

pytestmark = pytest.mark.e2e


def test_status_server_tells_freeradius_that_the_bridge_is_dead_while_consul_hangs_and_then_alive(host: Host) -> None:
    """RFC 5997. Consul is paused, not dead: connections stay open and nothing is answered."""
    server = host.freeradius("radiusd")
    assert host.nas("Start", "alice", "10.1.0.1").acknowledged
    host.consul.pause()
    assert not host.nas("Start", "bob", "10.1.0.2", timeout=1).acknowledged
    wait_until(lambda: "as dead" in server.read_log(), "FreeRADIUS to give up the bridge", timeout=30, every=0.1)
    host.consul.resume()
    back = f"{BRIDGE_PORT} alive"
    wait_until(lambda: back in server.read_log().rpartition("as dead")[2], "it to come alive", timeout=40, every=0.1)
    assert host.nas("Start", "bob", "10.1.0.2", retries=3).acknowledged
    assert host.user("10.1.0.2") == "bob"


def test_radclient_hears_status_server(host: Host) -> None:
    def asked(secret_file: object = host.secret_file) -> str:
        argv = ["radclient", "-r", "1", "-t", "1", "-S", str(secret_file), f"127.0.0.1:{BRIDGE_PORT}", "status"]
        return run(argv, namespace=host.namespace.name, stdin="Message-Authenticator = 0x00\n").stdout

    wait_until(lambda: "Received Accounting-Response" in asked(), "the first commit")
    wrong = host.folder / "wrong"
    wrong.write_text("another secret of the lab")
    assert "Received" not in asked(wrong)


def test_a_copy_is_recorded_and_the_nas_never_waits_for_it(host: Host) -> None:
    host.freeradius("replicate")
    assert host.nas("Start", "alice", "10.1.0.1").acknowledged
    wait_until(lambda: host.user("10.1.0.1") == "alice", "the copy", every=0.1)
    assert host.users()["10.1.0.1"]["nas"] == "127.0.0.1"
    host.bridge.kill()
    assert host.nas("Start", "bob", "10.1.0.2", timeout=1).acknowledged


def test_what_detail_buffers_is_recorded_after_an_outage_with_its_own_time(host: Host) -> None:
    host.freeradius("detail")
    host.bridge.kill()
    users = {f"10.1.0.{number}": f"user{number}" for number in range(1, 11)}
    for address, user in users.items():
        assert host.nas("Start", user, address, timeout=1).acknowledged
    host.bridge.start().wait_log("listening")
    wait_until(
        lambda: all(host.user(a) == u for a, u in users.items()), "the buffer to be empty", timeout=50, every=0.5
    )
    assert host.nas("Stop", "user1", "10.1.0.1").acknowledged
    wait_until(lambda: not host.user("10.1.0.1"), "the Stop", every=0.2)


def test_freeradius_forwards_by_radsec(host: Host) -> None:
    host.freeradius("radsec")
    assert host.nas("Start", "alice", "10.1.0.1", retries=3).acknowledged
    assert host.user("10.1.0.1") == "alice"
    assert host.nas("Stop", "alice", "10.1.0.1").acknowledged
    assert not host.user("10.1.0.1")


def test_radsecproxy_forwards_and_comes_again_after_the_bridge_was_away(host: Host) -> None:
    host.radsecproxy(host.proxys)
    assert host.nas("Start", "alice", "10.1.0.1", retries=3).acknowledged
    assert host.user("10.1.0.1") == "alice"
    host.bridge.kill()
    host.bridge.start().wait_log("listening")
    wait_until(lambda: host.nas("Start", "bob", "10.1.0.2").acknowledged, "radsecproxy to connect again", timeout=40)
    assert host.user("10.1.0.2") == "bob"


def test_rfc_7360_radsecproxy_forwards_by_dtls(host: Host) -> None:
    host.radsecproxy(host.proxys, "dtls")
    assert host.nas("Start", "alice", "10.1.0.1", retries=3).acknowledged
    assert host.user("10.1.0.1") == "alice"
    assert host.nas("Stop", "alice", "10.1.0.1").acknowledged
    assert not host.user("10.1.0.1")


def test_a_revoked_radsecproxy_is_refused_when_the_list_has_changed_and_the_log_says_why(host: Host) -> None:
    proxy = host.radsecproxy(host.proxys)
    assert host.nas("Start", "alice", "10.1.0.1", retries=3).acknowledged
    host.ca.revoke(host.proxys)
    host.bridge.wait_log("changed certificates taken", timeout=30)
    proxy.kill()  # by itself it waits half a minute before it comes again
    host.radsecproxy(host.proxys)
    wait_until(lambda: "certificate: it is revoked" in host.bridge.read_log(), "the refusal", timeout=30, every=0.1)
    assert not host.nas("Start", "bob", "10.1.0.2", timeout=1).acknowledged


@pytest.mark.parametrize("method", ["TTLS", "PEAP"])
def test_the_inner_identity_comes_back_for_accounting(host: Host, method: str) -> None:
    """RFC 2865 §5.1: the NAS uses the User-Name of the Access-Accept."""
    host.freeradius("eap")
    inner = "auth=PAP" if method == "TTLS" else "auth=MSCHAPV2"
    peer = host.folder / "peer.conf"
    peer.write_text(
        f"""\
network={{
    key_mgmt=WPA-EAP
    eap={method}
    anonymous_identity="anonymous@example.org"
    identity="alice"
    password="a password"
    ca_cert="{host.ca.certificate}"
    phase2="{inner}"
}}
"""
    )
    argv = ["eapol_test", "-c", str(peer), "-a", "127.0.0.1", "-s", SECRET, "-t", "10"]
    told = run(argv, namespace=host.namespace.name).stdout
    accept = told.rpartition("(Access-Accept)")[2]
    assert told.rstrip().endswith("SUCCESS")
    assert "Value: 'alice'" in accept


def test_openssl_agrees_on_alpn_and_sends_no_early_data_and_tls_1_1_is_refused(host: Host) -> None:
    """RFC 6614 §2.3, RFC 9765: what another TLS implementation sees."""
    argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{RADSEC_PORT}", "-alpn", "radius/1.0", "-tls1_3"]
    argv += ["-CAfile", str(host.ca.certificate), "-cert", str(host.proxys.certificate), "-key", str(host.proxys.key)]
    told = run(argv, namespace=host.namespace.name).stdout
    assert "ALPN protocol: radius/1.0" in told
    assert "Early data was not sent" in told
    assert "Verification: OK" in told
    old = run([*argv[:-7], "-tls1_1"], namespace=host.namespace.name)
    assert "Cipher is (NONE)" in old.stdout
    foreign = run([text if text != "radius/1.0" else "radius/1.1" for text in argv], namespace=host.namespace.name)
    assert "no application protocol" in foreign.stdout + foreign.stderr
