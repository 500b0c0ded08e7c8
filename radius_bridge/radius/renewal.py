"""Certificates and revocation lists that are renewed while the bridge runs: their files are read again."""

import asyncio
import re
import time

import structlog
from cryptography import x509

from radius_bridge import metrics
from radius_bridge.radius import tls
from radius_bridge.radius.server import Listener

EVERY = 10.0
"""Seconds between two looks."""

EXPIRED = "certificate or CRL is expired: TLS peers are refused, or refuse us"
"""The log's line about what is over. An old list could hide a revocation: nothing opens because it was not renewed."""

log = structlog.get_logger()

_CRL = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


class Renewal:
    """Looks whether the files of a listener's TLS have changed; what cannot be used is said once, and the old stay."""

    def __init__(self, listener: Listener) -> None:
        """`listener` has TLS, or there is nothing to do."""
        self._listener = listener
        self._useless: tls.Stamp | None = None
        """The state of the files that could not be used."""
        self._looked_at: tls.Stamp | None = None
        self._ends: dict[str, float] = {}
        self._told: set[tuple[str, float]] = set()

    async def run(self) -> None:
        """Does not end."""
        while True:
            self.look(time.time())
            await asyncio.sleep(EVERY)

    def look(self, now: float) -> None:
        """Takes what has changed; says, once, what is over at `now` (epoch seconds)."""
        made = self._listener.tls
        if made is None:
            return
        stamp = tls.stamp(made.files)
        if stamp not in (made.stamp, self._useless):
            made = self._renew(made, stamp)
        if made.stamp == stamp != self._looked_at:
            self._looked_at = stamp
            self._ends = ends(made.files)
            for kind, end in self._ends.items():
                metrics.TLS_ENDS.labels(kind).set(end)
        for kind, end in self._ends.items():
            if end <= now and (kind, end) not in self._told:
                self._told.add((kind, end))
                log.error(EXPIRED, file=str(getattr(made.files, kind)), since=int(end))

    def _renew(self, made: tls.Tls, stamp: tls.Stamp) -> tls.Tls:
        try:
            fresh = tls.load(made.files)
            self._listener.renew(fresh)
        except ValueError as error:
            self._useless = stamp
            log.error("changed certificates not taken, the old ones stay", error=f"radsec.{error}")
            return made
        if fresh.digest != made.digest:
            log.info("changed certificates taken")
        return fresh


def ends(files: tls.Files) -> dict[str, float]:
    """When our certificate, and the first of the revocation lists, is over (epoch seconds), by the key of `Files`.

    What cannot be told is left out.
    """
    found: dict[str, float] = {}
    try:
        ours = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
        found["certificate"] = ours.not_valid_after_utc.timestamp()
        if files.crl is not None:
            lists = [x509.load_pem_x509_crl(each) for each in _CRL.findall(files.crl.read_bytes())]
            updates = [each.next_update_utc.timestamp() for each in lists if each.next_update_utc is not None]
            if updates:
                found["crl"] = min(updates)
    except (OSError, ValueError) as error:
        log.warning("the end of the certificates is not known", error=str(error))
    return found
