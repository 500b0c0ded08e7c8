"""A real FreeRADIUS with the configuration of config/freeradius, and radclient."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab.processes import PROJECT, LabError, Process, run

CONFIG = PROJECT / "config" / "freeradius"


def forwarder(
    *,
    namespace: str,
    directory: Path,
    bridge: tuple[str, int],
    bridge_secret: str,
    nas_networks: tuple[str, str],
    nas_secret: str,
    configuration: str = "radiusd",
    more: Mapping[str, str | Path] | None = None,
) -> Process:
    """FreeRADIUS, not yet started, that takes accounting on port 1813 and passes it to `bridge`.

    `nas_networks` are the IPv4 and the IPv6 network that may send; `configuration` is the file in CONFIG that it
    runs, and `more` the variables that this file needs besides. Wait for `READY` in its log.
    """
    return Process(
        "freeradius",
        ["freeradius", "-f", "-l", "stdout", "-d", CONFIG, "-n", configuration],
        log=directory / "freeradius.log",
        namespace=namespace,
        env={
            "RADIUSD_RUN_DIR": str(directory),
            "RADIUS_BRIDGE_ADDRESS": bridge[0],
            "RADIUS_BRIDGE_PORT": str(bridge[1]),
            "RADIUS_BRIDGE_SECRET": bridge_secret,
            "NAS_NETWORK": nas_networks[0],
            "NAS_NETWORK6": nas_networks[1],
            "NAS_SECRET": nas_secret,
            **{name: str(value) for name, value in (more or {}).items()},
        },
    )


READY = "Ready to process requests"
"""What FreeRADIUS logs when it listens."""


@dataclass(frozen=True)
class Answer:
    """What came of one radclient call."""

    acknowledged: bool
    """True if an Accounting-Response came."""
    seconds: float
    output: str


def radclient(
    attributes: str,
    *,
    namespace: str,
    server: str,
    secret_file: Path,
    timeout: float = 3.0,
    retries: int = 1,
) -> Answer:
    """Sends one Accounting-Request to port 1813 of `server` and waits for its response.

    `attributes` as radclient reads them: `User-Name = "alice", Acct-Status-Type = Start, …`. Each of the
    `retries` waits `timeout` seconds. Raises LabError if radclient cannot send it at all.
    """
    host = f"[{server}]" if ":" in server else server
    began = time.monotonic()
    result = run(
        ["radclient", "-r", str(retries), "-t", f"{timeout:g}", "-S", secret_file, f"{host}:1813", "acct"],
        namespace=namespace,
        stdin=attributes + "\n",
        timeout=timeout * retries + 10,
    )
    seconds = time.monotonic() - began
    output = result.stdout + result.stderr
    if "Sent Accounting-Request" not in output:
        raise LabError(f"radclient sent nothing:\n{output}")
    return Answer("Received Accounting-Response" in output, seconds, output)
