"""The agent's configuration file."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from agent.desired import Failsafe
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
