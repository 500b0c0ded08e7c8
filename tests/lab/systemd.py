"""A host with systemd as its first process: this machine's files, on which nothing that is written lasts."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.lab.processes import PROJECT, LabError, Process, run, wait_until

_TARGET = "lab.target"
_PYTHON = "/opt/python"
_PROJECT = "/opt/project"
"""Where the project is on the machine: wherever it is here, units may not see that (PrivateTmp, ProtectHome)."""
_ENVIRONMENT = Path("/opt/radius-bridge")


class Systemd:
    """One machine between boots: `disk` keeps what was written to it, and must not be on an overlay itself.

    `with` makes and removes the disk; `boot` and `power_off` are as often as one likes.
    """

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self.root = disk / "root"
        """The machine's files, seen from outside."""
        self._nspawn: Process | None = None

    def __enter__(self) -> Self:
        if shutil.which("systemd-nspawn") is None:
            raise LabError("systemd-nspawn is missing: apt-get install systemd-container")
        _run("mount", "-t", "tmpfs", "tmpfs", self._disk)
        for name in ("root", "written", "work"):
            (self._disk / name).mkdir()
        layers = f"lowerdir=/,upperdir={self._disk / 'written'},workdir={self._disk / 'work'}"
        _run("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        return self

    def __exit__(self, *_: object) -> None:
        self.power_off()
        _run("umount", self.root)
        _run("umount", self._disk)

    def install(self, units: Sequence[Path], program: str) -> None:
        """Installs `program` as the units have it, in /opt/radius-bridge, and has every boot start the units."""
        unit_folder = self.root / "etc/systemd/system"
        for unit in units:
            shutil.copy(unit, unit_folder)
            # Only for this lab: a Python of its own folder finds its library there.
            self.write(f"etc/systemd/system/{unit.name}.d/lab.conf", _drop_in(f"{_PYTHON}/lib"))
        wants = " ".join(unit.name for unit in units)
        self.write(
            f"etc/systemd/system/{_TARGET}",
            f"[Unit]\nRequires=sysinit.target basic.target\nAfter=basic.target\nWants={wants}\nAllowIsolate=yes\n",
        )
        environment = self.root / _ENVIRONMENT.relative_to("/")
        library = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
        for folder in (environment / "bin", environment / library, self.root / _PYTHON.lstrip("/")):
            folder.mkdir(parents=True, exist_ok=True)
        ours = Path(sys.prefix)
        (environment / "pyvenv.cfg").write_text(f"home = {_PYTHON}/bin\n")
        (environment / "bin/python").symlink_to(f"{_PYTHON}/bin/{Path(sys.executable).resolve().name}")
        (environment / library / "site-packages").symlink_to(
            Path(_PROJECT) / ours.relative_to(PROJECT) / library / "site-packages"
        )
        script = (ours / "bin" / program).read_text().partition("\n")[2]
        script = f"#!{_ENVIRONMENT}/bin/python\nimport sys\nsys.path.insert(0, {_PROJECT!r})\n{script}"
        self.write(f"{_ENVIRONMENT}/bin/{program}", script, mode=0o755)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Writes a file of the machine."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def boot(self, namespace: str) -> None:
        """Boots, in a network namespace; returns at once."""
        argv: list[str | Path] = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--link-journal=no"]
        argv += [f"--directory={self.root}", f"--network-namespace-path=/run/netns/{namespace}", "--console=pipe"]
        argv += [
            f"--bind-ro={sys.base_prefix}:{_PYTHON}",
            f"--bind-ro={PROJECT}:{_PROJECT}",
            "--capability=CAP_NET_ADMIN",
        ]
        argv += ["--boot", f"systemd.unit={_TARGET}"]
        self._nspawn = Process("systemd", argv, log=self._disk / "console.log").start()

    def power_off(self) -> None:
        """Ends all that runs."""
        nspawn, leader = self._nspawn, self._children()
        self._nspawn = None
        if nspawn is not None:
            # Its first process takes all others with it; that of nspawn would leave them.
            for each in leader:
                os.kill(int(each), signal.SIGKILL)
            if not leader:
                nspawn.kill()
            wait_until(lambda: not nspawn.is_running, "the machine to end")

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Runs a command on the machine, as root."""
        leader = self._leader()
        return run(["nsenter", "-t", leader, "-m", "-u", "-i", "-n", "-p", *argv])

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """What systemd says of a unit; empty while it does not answer."""
        answer = self.run("systemctl", "show", unit, *(f"--property={each}" for each in properties))
        return dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)

    def wait_active(self, unit: str, *, timeout: float = 45.0) -> None:
        """Waits until a unit is active. Raises LabError with its journal if it is not in time."""
        try:
            wait_until(
                lambda: self.show(unit, "ActiveState").get("ActiveState") == "active", unit, timeout=timeout, every=0.1
            )
        except LabError as error:
            journal = self.run("journalctl", "--no-pager", "-b", "-n", "40").stdout
            raise LabError(f"{error}\n{journal}") from None

    def _leader(self) -> str:
        if self._nspawn is None:
            raise LabError("the machine is off")
        wait_until(lambda: bool(self._children()), "systemd to start")
        return self._children()[0]

    def _children(self) -> list[str]:
        if self._nspawn is None or not self._nspawn.is_running:
            return []
        return Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()


def _drop_in(library: str) -> str:
    return f"[Service]\nEnvironment=LD_LIBRARY_PATH={library}\n"


def _run(*argv: str | Path) -> None:
    done = run(list(argv))
    if done.returncode:
        raise LabError(f"{' '.join(map(str, argv))}: {done.stderr}")
