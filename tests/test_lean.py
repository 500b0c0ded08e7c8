"""Large libraries are imported without what nobody here uses."""

import subprocess
import sys

import pytest


def loaded(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running `code`."""
    show = "import sys; print('LOADED', *(name for name, module in sys.modules.items() if module is not None))"
    done = subprocess.run([sys.executable, "-c", f"{code}; {show}"], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("LOADED")[2].split())


UNUSED = ("rich", "requests", "urllib3", "consul.std", "pyroute2.ndb", "pyroute2.iproute", "aiohttp.web")


def test_the_agent_at_work_has_loaded_nothing_that_it_does_not_use() -> None:
    assert not loaded("import agent.run").intersection(UNUSED)


def test_a_connection_to_consul_loads_no_client_for_threads() -> None:
    assert not loaded("import radius_bridge.registry.consul").intersection(UNUSED)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("import radius_bridge", "import rich.console; rich.console.Console"),
        ("import radius_bridge.registry.consul", "import consul.std; consul.std.Consul().http.session.get"),
        ("import agent.dataplane.sets", "import pyroute2; pyroute2.IPRoute, pyroute2.NDB, pyroute2.AsyncIPSet"),
    ],
)
def test_what_is_left_out_can_be_imported_later(ours: str, theirs: str) -> None:
    assert loaded(f"{ours}; {theirs}")


def test_the_systems_certificates_are_only_loaded_for_https() -> None:
    """aiohttp's own context, which it makes when it is imported, has none; the client makes one that has them."""
    assert loaded(
        "import os; os.environ['SSL_CERT_FILE'] = 'mine'; os.environ.pop('SSL_CERT_DIR', None); "
        "import radius_bridge.registry.consul, aiohttp.connector; "
        "assert os.environ['SSL_CERT_FILE'] == 'mine' and 'SSL_CERT_DIR' not in os.environ; "
        "assert not aiohttp.connector._SSL_CONTEXT_VERIFIED.get_ca_certs()"
    )
