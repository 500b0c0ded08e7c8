"""The whole path on real clusters: a bridge, protected hosts in any datacenter, and NASes that never stop."""

import itertools
import json
import selectors
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import TracebackType
from typing import Final, Self

from tests.lab.cluster import PORT, Datacenter, Machine
from tests.lab.ipset import SetProbe
from tests.lab.processes import BIN, LabError, Process, run, wait_until
from tests.lab.radius_client import Status, accounting, is_response, request
from tests.lab.site import write_secret

SECRET: Final = b"lab-nas-secret"
RADIUS_PORT: Final = 1813
SERVICE: Final = "wiki_tcp_8080"
SET: Final = f"rb4h.{SERVICE}"
FIRST: Final = int(IPv4Address("10.66.0.1"))
REPEAT: Final = 1.0
"""Seconds after which a NAS repeats what was not answered."""

_SOCKETS: Final = 32
"""Of one NAS; each has 256 identifiers."""


def address(number: int) -> str:
    """Where user number `number` is."""
    return str(IPv4Address(FIRST + number))


class Bridge:
    """`radius-bridge serve` on a host of a datacenter."""

    def __init__(self, dc: Datacenter, *, copies: tuple[str, ...] = ()) -> None:
        self.machine = dc.add_host("bridge")
        folder = self.machine.folder
        write_secret(folder / "secret", SECRET)
        config = folder / "bridge.toml"
        config.write_text(
            f"""[consul]
url = "http://127.0.0.1:{PORT}"
[datacenters]
copies = {json.dumps(copies)}
[radius]
listen = ["{self.machine.address}:{RADIUS_PORT}"]
[[client]]
name = "nas"
address = "{dc.gateway}"
secret_file = "{folder / "secret"}"
networks = ["10.66.0.0/16"]
"""
        )
        self.process = Process(
            "bridge",
            [BIN / "radius-bridge", "serve", "-c", config],
            log=folder / "bridge.log",
            namespace=self.machine.namespace.name,
        )

    def engineer(self, *arguments: str, timeout: float = 60.0) -> str:
        """Runs `radius-bridge ARGUMENTS` here; gives its output. LabError if it fails."""
        return self.machine.run(BIN / "radius-bridge", *arguments, timeout=timeout)

    def engineer_told(self, *arguments: str, timeout: float) -> str:
        """The same, whatever becomes of it: everything that it prints."""
        done = run([BIN / "radius-bridge", *arguments], namespace=self.machine.namespace.name, timeout=timeout)
        return done.stdout + done.stderr

    def grant_all(self) -> None:
        """Puts every user into a group and grants it the service, in every datacenter."""
        self.engineer("group", "add", "staff", "user0")
        self.engineer("grant", "group:staff", SERVICE)


def _import_users(machine: Machine, count: int) -> None:
    """Makes users members of the group that is granted the service, in the datacenter of `machine`."""
    members = [
        {"key": f"befw/$alias$/$staff$/$user.user{number}$", "flags": 0, "value": "LTE="}  # -1: for good
        for number in range(count)
    ]
    done = run(
        ["consul", "kv", "import", "-"], namespace=machine.namespace.name, stdin=json.dumps(members), timeout=120
    )
    if done.returncode:
        raise LabError(f"consul kv import: {done.stderr}")


class Protected:
    """A host with the agent, and a look into its kernel."""

    def __init__(self, dc: Datacenter) -> None:
        self.machine = dc.add_host("web")
        folder = self.machine.folder
        (folder / "services.d").mkdir()
        (folder / "services.d" / "wiki.json").write_text(json.dumps({"name": "wiki", "ports": ["8080/tcp"]}))
        config = folder / "agent.toml"
        config.write_text(
            f"""services_dir = "{folder / "services.d"}"
state_dir = "{folder / "agent"}"
control_socket = "{folder / "agent" / "control.sock"}"
node = "web"
[consul]
url = "http://127.0.0.1:{PORT}"
"""
        )
        self.process = Process(
            "agent",
            [BIN / "radius-bridge-agent", "run", "-c", config],
            log=folder / "agent.log",
            namespace=self.machine.namespace.name,
        )
        self.probe = SetProbe(self.machine.namespace)
        """Close it (it is a context manager) at the end."""
        self._lock = threading.Lock()

    def holds(self, number: int, set_name: str = SET) -> bool:
        """True if the kernel lets user number `number` in (or has it in another set)."""
        with self._lock:
            return self.probe.holds(set_name, address(number))


class Estate:
    """Bridge and protected hosts; a context manager that starts them and leaves no process behind."""

    def __init__(self, home: Datacenter, *others: Datacenter, users: int = 12_000) -> None:
        """`others` get copies; each has a protected host too. Users 0 … `users` - 1 are granted the service."""
        self._users = users
        self._home = home
        self._others = others
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self.bridge = Bridge(self._home, copies=tuple(each.name for each in self._others))
            self.hosts = {dc.name: Protected(dc) for dc in (self._home, *self._others)}
            stack.callback(self.bridge.process.kill)
            self.bridge.process.start().wait_log("listening", timeout=30)
            self.bridge.grant_all()
            for host in self.hosts.values():
                stack.enter_context(host.probe)
                _import_users(host.machine, self._users)
                stack.callback(host.process.kill)
                host.process.start().wait_log("enforcing", timeout=30)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def nas(self, per_s: float = 0.0, first: int = 1000) -> "Nas":
        """A NAS at the home's switch, which logs in `per_s` new users each second, from number `first` on."""
        sockets = []
        for _ in range(_SOCKETS):
            sock = self._home.switch.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.connect((self.bridge.machine.address, RADIUS_PORT))
            sockets.append(sock)
        return Nas(sockets, self.hosts, per_s, first)


@dataclass
class Login:
    """One accounting event and what became of it; times are monotonic."""

    number: int
    packet: bytes
    sent: float
    opens: bool
    """A Start or a Stop."""
    tries: int = 1
    answered: float = 0.0
    in_kernel: dict[str, float] = field(default_factory=dict)
    """When each datacenter's host had it."""


class Nas:
    """Sends logins at a steady rate, whatever becomes of them, and repeats what is not answered.

    A context manager; a second thread looks into the kernels.
    """

    def __init__(self, sockets: list[socket.socket], hosts: dict[str, Protected], per_s: float, first: int) -> None:
        self._sockets = sockets
        self._hosts = hosts
        self._per_s = per_s
        self._identifiers = [itertools.cycle(range(256)) for _ in sockets]
        self._turns = itertools.cycle(range(len(sockets)))
        self._numbers = itertools.count(first)
        self._waiting: dict[tuple[int, int], Login] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._quiet = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._talk, self._look)]
        self.logins: list[Login] = []
        """Everything sent."""
        self.error: BaseException | None = None
        """What ended a thread too early."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)
        for sock in self._sockets:
            sock.close()

    def send(self, status: Status, number: int, *, seconds: int | None = None) -> Login:
        """Sends one event of user `number` besides; `seconds` is its Session-Timeout."""
        attributes = accounting(
            status, f"user{number}", f"s{number}", address(number), session_timeout=seconds, event_time=time.time()
        )
        with self._lock:
            place = next(self._turns)
            identifier = next(self._identifiers[place])
            login = Login(
                number, request(identifier, attributes, SECRET), time.monotonic(), opens=status is Status.START
            )
            self._waiting[place, identifier] = login
            self.logins.append(login)
            self._sockets[place].send(login.packet)
        return login

    def quiet(self) -> None:
        """Sends no new logins any more; what was sent is still repeated and looked for."""
        self._quiet.set()

    def settle(self, timeout: float) -> None:
        """Waits until all is answered and in the kernels. LabError if not."""

        def settled() -> bool:
            if self.error is not None:
                raise self.error
            return not self._waiting and not self._missing()

        try:
            wait_until(settled, "every login to be answered and enforced", timeout=timeout, every=0.05)
        except LabError as error:
            missing = [(login.number, sorted(login.in_kernel)) for login in self._missing()[:5]]
            raise LabError(f"{error}: {len(self._waiting)} unanswered, not in the kernel {missing}") from None

    def _missing(self) -> list[Login]:
        return [login for login in list(self.logins) if len(login.in_kernel) < len(self._hosts)]

    def _talk(self) -> None:
        try:
            ready = selectors.DefaultSelector()
            for place, sock in enumerate(self._sockets):
                sock.setblocking(False)
                ready.register(sock, selectors.EVENT_READ, place)
            due = time.monotonic()
            while not self._stop.is_set():
                for key, _ in ready.select(0.005):
                    self._receive(key.data)
                now = time.monotonic()
                while self._per_s and not self._quiet.is_set() and now >= due:
                    self.send(Status.START, next(self._numbers))
                    due += 1 / self._per_s
                with self._lock:
                    for (place, _), login in self._waiting.items():
                        if now - login.sent >= REPEAT * login.tries:
                            login.tries += 1
                            self._send_again(place, login)
        except BaseException as error:  # raised by `settle`, in the thread that waits
            self.error = error

    def _send_again(self, place: int, login: Login) -> None:
        try:
            self._sockets[place].send(login.packet)
        except ConnectionRefusedError:
            return  # nobody listens right now: its turn comes again

    def _receive(self, place: int) -> None:
        while True:
            try:
                answer = self._sockets[place].recv(4096)
            except (BlockingIOError, ConnectionRefusedError):
                return
            with self._lock:
                login = self._waiting.get((place, answer[1]))
                if login is not None and is_response(answer, login.packet, SECRET):
                    login.answered = time.monotonic()
                    del self._waiting[place, answer[1]]

    def _look(self) -> None:
        try:
            open_logins: list[Login] = []
            seen = 0
            while not self._stop.is_set():
                fresh = self.logins[seen:]
                seen += len(fresh)
                open_logins += fresh
                for login in open_logins:
                    for name, host in self._hosts.items():
                        if name not in login.in_kernel and host.holds(login.number) is login.opens:
                            login.in_kernel[name] = time.monotonic()
                open_logins = [login for login in open_logins if len(login.in_kernel) < len(self._hosts)]
                time.sleep(0.002)
        except BaseException as error:
            self.error = error
