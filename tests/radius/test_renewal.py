"""Files that change while the bridge runs."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path, PosixPath

import pytest
from OpenSSL import SSL
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from radius_bridge.radius import tls
from radius_bridge.radius.accounting import Rules
from radius_bridge.radius.clients import Networks
from radius_bridge.radius.openssl import Contexts
from radius_bridge.radius.renewal import EXPIRED, Renewal, ends
from radius_bridge.radius.server import Listener
from tests.lab.pki import DAY
from tests.radius.recorder import Recorder
from tests.radius.secured import CLIENTS, NAMES, SecuredLab


class Lab(SecuredLab):
    """A listener by RadSec and DTLS, and what watches its files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.listener = Listener(
            [], CLIENTS, Rules(3600, Networks([])), Recorder().submit,
            radsec=[("127.0.0.1", 0)], dtls=[("127.0.0.1", 0), ("127.0.0.1", 0)], tls=self.load(),
        )  # fmt: skip
        self.listener.start()
        self.renewal = Renewal(self.listener)

    def look(self, now: float | None = None) -> list[str]:
        """What the log says at a look."""
        with capture_logs() as log:
            self.renewal.look(time.time() if now is None else now)
        return [line["event"] for line in log]

    @property
    def digest(self) -> bytes:
        assert self.listener.tls is not None
        return self.listener.tls.digest


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.listener.close()
    await made.listener.drain(0)


async def test_a_list_that_changes_is_taken_without_a_signal(lab: Lab) -> None:
    before = lab.digest
    assert lab.look() == []
    assert lab.digest == before
    lab.ca.revoke(lab.proxy)
    assert lab.look() == ["changed certificates taken"]
    assert lab.digest != before
    assert lab.look() == []


async def test_a_file_that_was_only_touched_disturbs_nobody(lab: Lab) -> None:
    before = lab.digest
    lab.ca.crl.touch()
    assert lab.look() == lab.look() == []
    assert lab.digest == before


@pytest.mark.parametrize("broken", [b"", b"this is no PEM", None], ids=["empty", "no PEM", "gone"])
async def test_what_cannot_be_used_is_said_once_and_the_old_stays(lab: Lab, broken: bytes | None) -> None:
    before, good = lab.digest, lab.ca.crl.read_bytes()
    if broken is None:
        lab.ca.crl.unlink()
    else:
        lab.ca.crl.write_bytes(broken)
    assert lab.look() == ["changed certificates not taken, the old ones stay"]
    assert lab.look() == []
    assert lab.digest == before
    lab.ca.crl.write_bytes(good)
    assert lab.look() == []
    lab.ca.revoke(lab.proxy)
    assert lab.look() == ["changed certificates taken"]


async def test_a_certificate_whose_key_is_still_the_old_one_waits_for_its_key(lab: Lab) -> None:
    fresh = lab.ca.issue("fresh", *NAMES)
    lab.ours.certificate.write_bytes(fresh.certificate.read_bytes())
    assert lab.look() == ["changed certificates not taken, the old ones stay"]
    lab.ours.key.write_bytes(fresh.key.read_bytes())
    assert lab.look() == ["changed certificates taken"]


async def test_what_is_over_is_said_once_and_shown_beforehand(lab: Lab) -> None:
    end = ends(lab.files)
    assert time.time() + 29 * 86400 < end["crl"] < time.time() + 31 * 86400
    assert lab.look(end["crl"] - 1) == []
    labels = {"file": "crl"}
    assert REGISTRY.get_sample_value("radius_bridge_tls_end_timestamp_seconds", labels) == end["crl"]
    assert lab.look(end["crl"]) == [EXPIRED] * 2  # our certificate too
    assert lab.look(end["crl"] + 60) == []
    lab.ca.write_crl(-DAY)
    assert lab.look() == ["changed certificates taken", EXPIRED]


class _Vanishing(PosixPath):
    """A file that is renewed between two looks at it: gone after it was read once."""

    def read_bytes(self) -> bytes:
        octets = super().read_bytes()
        self.unlink()
        return octets


@pytest.mark.parametrize("key", ["certificate", "key", "ca", "crl"])
async def test_a_file_that_vanishes_while_it_is_read_is_told_by_name(lab: Lab, key: str) -> None:
    files = lab.files
    with pytest.raises(ValueError, match=f"{key}_file .*No such file"):
        tls.load(replace(files, **{key: _Vanishing(getattr(files, key))}))


async def test_a_key_that_everybody_can_read_is_not_taken_until_that_is_mended(lab: Lab) -> None:
    key = lab.ours.key
    key.chmod(0o644)
    with pytest.raises(ValueError, match=r"^key_file .* can be read by everybody: chmod 640"):
        lab.load()
    assert lab.look() == ["changed certificates not taken, the old ones stay"]
    assert lab.look() == []
    key.chmod(0o640)
    lab.ca.revoke(lab.proxy)
    assert lab.look() == ["changed certificates taken"]


async def test_what_one_of_several_sockets_cannot_use_none_of_them_takes(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tls.Files] = []
    make = Contexts.make

    def fails_at_the_second(contexts: Contexts, files: tls.Files) -> SSL.Context:
        made.append(files)
        if len(made) == 2:
            raise ValueError("replaced at this moment")
        return make(contexts, files)

    monkeypatch.setattr(Contexts, "make", fails_at_the_second)
    before = lab.digest
    lab.ca.revoke(lab.proxy)
    assert lab.look() == ["changed certificates not taken, the old ones stay"]
    assert {each.tls.digest for each in (*lab.listener._dtls, *lab.listener._radsec)} == {before}
