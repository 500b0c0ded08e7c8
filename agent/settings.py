"""The agent's configuration file."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from agent.desired import ALLOW, DENY, CustomSet, Failsafe, Opening, Posture, RefusedLog, Target
from radius_bridge.policy.members import Prefix, parse_prefix
from radius_bridge.policy.services import Ports, parse_ports
from radius_bridge.registry.settings import ConsulSettings


def _prefix(value: Any) -> Any:
    return parse_prefix(value) if isinstance(value, str) else value


def _ports(value: Any) -> Any:
    return parse_ports(str(value)) if isinstance(value, str | int) else value


class FailsafeSettings(BaseModel):
    """Networks that always reach these ports, whatever Consul says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    networks: Annotated[list[Annotated[Prefix, BeforeValidator(_prefix)]], Field(min_length=1)]
    ports: Annotated[list[Annotated[Ports, BeforeValidator(_ports)]], Field(min_length=1)]

    def failsafe(self) -> Failsafe:
        """The same as plain data."""
        return Failsafe(tuple(self.networks), tuple(self.ports))


class OpeningSettings(BaseModel):
    """What stays open on a closed host; without networks to everyone, without ports everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    networks: list[Annotated[Prefix, BeforeValidator(_prefix)]] = []
    ports: list[Annotated[Ports, BeforeValidator(_ports)]] = []

    def opening(self) -> Opening:
        """The same as plain data. Raises ValueError if it would open everything to everyone."""
        if not self.networks and not self.ports:
            raise ValueError('open: name networks or ports, or both; to open everything, use policy = "services"')
        return Opening(tuple(self.networks), tuple(self.ports))


class RefusedSettings(BaseModel):
    """How refused attempts to connect are told to userspace (NFLOG)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: Annotated[int, Field(ge=0, le=65535)] = 2086
    """The NFLOG group; the prefix is `rb:refused:<service>`, `rb:denied` or `rb:closed`."""
    per_second: Annotated[int, Field(ge=0, le=10_000)] = 10
    """So many of each service at most; 0 logs nothing."""


class IntegritySettings(BaseModel):
    """How it is seen that somebody changed our part of the kernel by hand."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: Annotated[float, Field(ge=0.5, le=60)] = 3.0
    """Seconds between two looks at what the kernel does not tell of: members of ipset, rules of iptables-legacy."""


def _target(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return {"noop": Target.NONE}.get(value.lower(), value.lower())


def _set_name(name: str) -> str:
    if name in (ALLOW, DENY):
        raise ValueError(f"{name} is an override: its target is fixed")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", name) or re.search(r"_(tcp|udp)_\d+$", name):
        raise ValueError(f"{name!r} is no name for a set: letters, digits and . _ - only, and not like a service's")
    return name


class AgentSettings(BaseModel):
    """Everything the agent can be told; all of it has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consul: ConsulSettings = ConsulSettings()
    services_dir: Path = Path("/etc/radius-bridge-agent/services.d")
    """Service files (*.json) of this host, besides the services of its Consul agent."""
    state_dir: Path = Path("/var/lib/radius-bridge-agent")
    """Where the agent keeps its lock, and what it enforces for the time after a reboot; its own user's only."""
    control_socket: Path = Path("/run/radius-bridge-agent/control.sock")
    """Where `radius-bridge-agent status` finds the agent; for root and its own user only."""
    node: str = Field(default="", pattern=r"^[a-z0-9-]*$")
    """This host's name in grants; without it, the Consul agent's node name up to the first dot."""
    datacenter: str = Field(default="", pattern=r"^[A-Za-z0-9_-]*$")
    """This host's datacenter in grants; without it, the Consul agent's."""
    failsafe: list[FailsafeSettings] = []
    """The way in that nothing closes, for example a management network to port 22."""
    backend: Literal["auto", "ipset", "nftables"] = "auto"
    """What programs the kernel; `auto` is ipset and iptables if the host has iptables, else nftables."""
    mode: Literal["enforce", "observe"] = "enforce"
    """In `observe`, everything is looked up and counted, and nothing is refused."""
    policy: Literal["services", "closed"] = "services"
    """What becomes of ports that are no service's: they stay as they were, or are closed but for `open`."""
    open: list[OpeningSettings] = []
    """What stays open if the policy is `closed`."""
    set: dict[Annotated[str, AfterValidator(_set_name)], Annotated[Target, BeforeValidator(_target)]] = {}
    """Sets of the key space `$ipset$` besides the overrides, in the order in which they are looked up: their target.

    As in BEFW's configuration: `set.NAME = "ACCEPT"`, `DROP`, `REJECT`, or `NOOP` for a set without rules.
    """
    templates: dict[Literal["ipset", "nftables"], Path] = {}
    """A site's own templates of rules, by backend."""
    refused: RefusedSettings = RefusedSettings()
    integrity: IntegritySettings = IntegritySettings()

    def posture(self) -> Posture:
        """How the host acts, as plain data. Raises ValueError that names the key."""
        if self.open and self.policy != "closed":
            raise ValueError('open: these are exceptions of policy = "closed", which is not set')
        return Posture(
            sets=tuple(CustomSet(name, target) for name, target in self.set.items()),
            closed=self.policy == "closed",
            openings=tuple(each.opening() for each in self.open),
            observe=self.mode == "observe",
            log=RefusedLog(self.refused.group, self.refused.per_second) if self.refused.per_second else None,
        )
