"""`[[lease]]`: where DHCP servers' leases are learnt from."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, model_validator

from radius_bridge.secretfile import secret_from_file
from radius_bridge.setting_fields import EndpointField, PrefixField, not_empty


class LeaseSettings(BaseModel):
    """One `[[lease]]`: where a DHCP server's leases are learnt from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    """How bindings, logs and metrics call it."""
    type: Literal["kea", "dnsmasq", "push"]
    networks: Annotated[tuple[PrefixField, ...], AfterValidator(not_empty)]
    """The only addresses that it may name."""
    path: Path | None = None
    """kea, dnsmasq: the lease file."""
    control_socket: Path | None = None
    """kea: its control socket, which says where the leases are; instead of `path`."""
    listen: EndpointField | None = None
    """push: address and TCP port."""
    token_file: Path | None = None
    """push: a file that holds the token of those who push, and nothing else."""
    allowed: tuple[PrefixField, ...] = ()
    """push: the networks that they push from."""

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Self:
        given = {key for key in _LEASE_KEYS if getattr(self, key)}
        choices = _LEASE_TYPES[self.type]
        if given not in choices:
            wanted = " or ".join(" and ".join(sorted(choice)) for choice in choices)
            found = f", not {', '.join(sorted(given))}" if given else ""
            raise ValueError(f"a source of type {self.type!r} needs {wanted}{found}")
        if self.token_file is not None:
            self.read_token()
        return self

    def read_token(self) -> bytes:
        """The token of a `push` source. Raises ValueError, saying which file is wrong, never what is in it."""
        token = b"" if self.token_file is None else secret_from_file(self.token_file, "token_file")
        if not re.fullmatch(rb"[!-~]{16,}", token):
            raise ValueError(
                f"token_file {self.token_file} needs a token of 16 characters or more without blanks: "
                f"openssl rand -hex 32 >{self.token_file}"
            )
        return token


_LEASE_TYPES: dict[str, list[set[str]]] = {
    "kea": [{"path"}, {"control_socket"}],
    "dnsmasq": [{"path"}],
    "push": [{"listen", "token_file", "allowed"}],
}
_LEASE_KEYS = frozenset().union(*(keys for choices in _LEASE_TYPES.values() for keys in choices))
