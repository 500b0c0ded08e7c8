"""The last good state on disk: whole or refused, never half believed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from agent.desired import ALLOW, DENY, Failsafe, Posture
from agent.state import FORMAT, State, StateError, decode, encode
from agent.statefile import ASIDE_KEPT, StateFile
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.policy.services import Service, parse_ports
from radius_bridge.registry.keys import Scope
from tests.lab.processes import wait_until

NOW = 1000.0
SSH = Service("ssh_tcp_22", (parse_ports("22"), parse_ports("8080:8090/udp")), "/etc/ssh.json")
ALICE, BOB = parse_prefix("10.0.0.1"), parse_prefix("2001:db8::1")


def state(members: dict[Prefix, float] | None = None, **more: Any) -> State:
    by_name = {ALLOW: {}, DENY: {parse_prefix("10.6.0.0/16"): NEVER}, SSH.name: members or {ALICE: 2000, BOB: NEVER}}
    values: dict[str, Any] = {
        "root": "befw",
        "scope": Scope("dc1", "web1"),
        "written": NOW,
        "services": (SSH,),
        "members": by_name,
        "absent": {SSH.name: 900.0},
        "looked": 990.0,
    }
    return State(**(values | more))


def content(of: State) -> bytes:
    return b"".join(encode(of))


prefixes = st.one_of(
    st.integers(0, 2**32 - 1).map(lambda number: Prefix(4, number, 32)),
    st.integers(0, 2**128 - 1).filter(lambda n: n >> 32 != 0xFFFF).map(lambda number: Prefix(6, number, 128)),
    st.tuples(st.integers(0, 255), st.integers(0, 8)).map(lambda n: Prefix(4, n[0] >> (8 - n[1]) << (32 - n[1]), n[1])),
)


@given(st.dictionaries(prefixes, st.one_of(st.just(NEVER), st.integers(0, 1 << 53)), max_size=20))
def test_what_was_written_is_what_is_read(members: dict[Prefix, float]) -> None:
    assert decode(content(state(members or {ALICE: 1}))) == state(members or {ALICE: 1})


def test_many_members_are_all_there() -> None:
    many = state({Prefix(4, number, 32): NOW + number for number in range(2500)})
    assert decode(content(many)) == many


@given(st.data())
@settings(max_examples=300)
def test_no_damage_goes_unnoticed(data: st.DataObject) -> None:
    good = content(state())
    bad = bytearray(good)
    if data.draw(st.booleans()):
        del bad[data.draw(st.integers(0, len(bad) - 1)) :]
    else:
        place = data.draw(st.integers(0, len(bad) - 1))
        bad[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StateError):
        decode(bytes(bad))


@pytest.mark.parametrize(
    "nonsense", [b"", b"\n", b"{}\n", b'{"sha256":""}\n', b"\xff" * 100, b"# /etc/fstab\n", b'{"x":' * 9999]
)
def test_a_foreign_file_is_no_state(nonsense: bytes) -> None:
    with pytest.raises(StateError, match="no state of an agent"):
        decode(nonsense)


def test_a_newer_format_is_refused_and_named() -> None:
    lines = content(state()).splitlines()
    header = json.loads(lines[0]) | {"format": FORMAT + 1, "services": "in another form"}
    with pytest.raises(StateError, match=f"format {FORMAT + 1}; this agent knows {FORMAT}"):
        decode(b"\n".join([json.dumps(header).encode(), *lines[1:], b""]))


def test_what_is_over_is_not_enforced_again() -> None:
    kept = state({ALICE: NOW, BOB: NOW + 1, parse_prefix("10.0.0.2"): NEVER})
    failsafe = (Failsafe((parse_prefix("10.9.0.0/16"),), SSH.ports),)
    desired = kept.desired(failsafe, Posture(), NOW)
    assert desired.members[SSH.name] == {BOB: NOW + 1, parse_prefix("10.0.0.2"): NEVER}
    assert desired.members[DENY] == {parse_prefix("10.6.0.0/16"): NEVER}
    assert (desired.services, desired.failsafe) == ((SSH,), failsafe)


def test_the_file_is_its_owners_only_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state")
    assert file.read() is None
    size = file.write(encode(state()))
    assert file.read() == state()
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.stat().st_size == size
    assert list(file.path.parent.iterdir()) == [file.path]


def _with_mode(file: Path) -> None:
    file.chmod(0o666)


def _of_somebody(file: Path) -> None:
    os.chown(file, 12345, 12345)


def _linked(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def _no_file(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("spoil", [_with_mode, _of_somebody, _linked, _no_file])
def test_a_file_that_others_could_have_written_is_refused(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    file = StateFile(tmp_path)
    file.write(encode(state()))
    spoil(file.path)
    with pytest.raises(StateError):
        file.read()


def test_refused_files_are_kept_aside_and_the_oldest_go(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    for number in range(ASIDE_KEPT + 3):
        file.path.write_text(f"refused {number}")
        aside = file.set_aside(NOW + number)
        assert aside.name.startswith("state.corrupt-1970")
    kept = sorted(path.read_text() for path in tmp_path.iterdir())
    assert kept == [f"refused {number}" for number in range(3, ASIDE_KEPT + 3)]


def test_a_full_disk_leaves_the_last_state_as_it_was(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.write(encode(state()))

    def fails() -> Iterable[bytes]:
        yield b"the beginning of another state\n"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        file.write(fails())
    assert file.read() == state()
    assert list(tmp_path.iterdir()) == [file.path]


_WRITER = """
import sys
from pathlib import Path
from agent.statefile import StateFile
from tests.agent.test_state import numbered
from agent.state import encode
file = StateFile(Path(sys.argv[1]))
for number in range(1, 1 << 30):
    file.write(encode(numbered(number)))
"""


def numbered(number: int) -> State:
    """One of many states, all of whose members say which."""
    return state({Prefix(4, address, 32): NOW + number for address in range(5000)}, written=float(number))


def _is_written_anew(path: Path, before: int) -> bool:
    return path.exists() and path.stat().st_mtime_ns != before


def test_a_writer_that_is_killed_leaves_a_whole_state(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    for delay in range(8):
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], cwd=Path(__file__).parents[2]) as writer:
            before = file.path.stat().st_mtime_ns if file.path.exists() else 0
            wait_until(partial(_is_written_anew, file.path, before), "a write")
            time.sleep(delay / 400)  # somewhere in the middle of the next ones
            writer.send_signal(signal.SIGKILL)
        found = file.read()
        assert found is not None
        assert found == numbered(int(found.written))
