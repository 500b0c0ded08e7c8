"""RADIUS servers behind a generator: started on a free port of the loopback, ready, and ended."""

import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.ports import free_ports
from tests.lab.processes import Process
from tests.lab.radius_client import AccountingClient, Status, accounting

SECRET = b"a secret of a benchmark"

Make = Callable[[Path, int], Process]
"""Makes a server, not yet started, that has a folder for itself and listens at a UDP port of 127.0.0.1.

The port above that one is free, too.
"""


def connected(port: int) -> socket.socket:
    """A non-blocking UDP socket towards a server, with room for many responses."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.setblocking(False)
    sock.connect(("127.0.0.1", port))
    return sock


@contextmanager
def serving(make: Make) -> Iterator[tuple[Process, int]]:
    """A server that answers, and its port. Raises LabError if it does not within two minutes."""
    port, _ = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="rb-bench-") as folder:
        server = make(Path(folder), port)
        try:
            server.start().wait_ready(lambda: _answers(port), timeout=120)
            yield server, port
        finally:
            server.kill()


def freeradius(folder: Path, port: int, *, modules: str, accounting: str, threads: int, spare: int) -> Process:
    """FreeRADIUS for accounting: `modules` as in its configuration, `accounting` the names of those that are called.

    `threads` are there from the start and at most, unless `spare` says how many start.
    """
    (folder / "radiusd.conf").write_text(
        f"""\
name = radiusd
run_dir = {folder}
logdir = {folder}
libdir = /usr/lib/freeradius
pidfile = {folder}/radiusd.pid
max_request_time = 30
cleanup_delay = 5
max_requests = 262144
hostname_lookups = no
log {{ destination = stdout }}
security {{ max_attributes = 200 }}
proxy_requests = no
client bench {{
	ipv4addr = 127.0.0.1
	secret = "{SECRET.decode()}"
}}
thread pool {{
	start_servers = {spare or threads}
	max_servers = {threads}
	min_spare_servers = 3
	max_spare_servers = {2 * spare or threads}
	max_requests_per_server = 0
}}
modules {{
{modules}
}}
server default {{
	listen {{
		type = acct
		ipv4addr = 127.0.0.1
		port = {port}
		recv_buff = 4194304
	}}
	accounting {{
		{accounting}
	}}
}}
"""
    )
    argv: list[str | Path] = ["freeradius", "-f", "-l", "stdout", "-d", folder, "-n", "radiusd"]
    return Process("freeradius", argv, log=folder / "log")


def _answers(port: int) -> bool:
    with AccountingClient(connected(port), SECRET) as client:
        return client.send(accounting(Status.START, "nobody", "first", "10.255.255.255"), timeout=0.2) is not None
