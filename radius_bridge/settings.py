"""The bridge's configuration file (config/bridge/radius-bridge.toml is the commented example)."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from radius_bridge.attribute_settings import (
    DerivedGroupField,
    GroupSettings,
    NamesSettings,
    SourceField,
    users,
)
from radius_bridge.lease_settings import LeaseSettings
from radius_bridge.radius import tls
from radius_bridge.radius.accounting import Rules
from radius_bridge.radius.addresses import DEFAULT, Addresses, Source
from radius_bridge.radius.clients import Client, Clients, Networks
from radius_bridge.radius.dictionary import with_sites
from radius_bridge.radius.sockets import endpoint
from radius_bridge.radius.users import Users
from radius_bridge.registry.settings import ConsulSettings, PlainUrl
from radius_bridge.secretfile import secret_from_file
from radius_bridge.setting_fields import (
    CertificateNameField,
    DurationField,
    EndpointField,
    FingerprintField,
    PrefixField,
    RealmField,
    not_empty,
)

SHORTEST_SECRET = 8
"""Octets. RFC 2865 §3 wants 16; fewer than 8 are found by trying them all on one captured packet."""


class ClientSettings(BaseModel):
    """One `[[client]]`: a NAS or a proxy that may send accounting."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    """How bindings and logs call it."""
    address: PrefixField | None = None
    """The address or network that its datagrams come from. For RadSec instead, one of the next two."""
    certificate_name: CertificateNameField | None = None
    """A DNS name in its certificate."""
    fingerprint: FingerprintField | None = None
    """SHA-256 of its certificate."""
    secret: SecretStr | None = None
    """The shared secret itself; prefer one of the next two."""
    secret_file: Path | None = None
    """A file that holds the shared secret and nothing else."""
    secret_env: str | None = None
    """An environment variable that holds it."""
    networks: Annotated[tuple[PrefixField, ...], AfterValidator(not_empty)]
    """The only addresses it can bind users to."""
    realms: Annotated[tuple[RealmField, ...], AfterValidator(not_empty)] | None = None
    """The only realms (as they stand in names) whose users it can bind; without it, any user."""
    groups: tuple[DerivedGroupField, ...] | None = None
    """The only groups ([[group]]) that it can put users into; without it, any."""
    lease: DurationField | None = None
    """How long a binding lasts if no DHCP lease is known and the packet has no Session-Timeout."""

    @model_validator(mode="after")
    def _has_a_secret(self) -> Self:
        self.read_secret()
        return self

    @model_validator(mode="after")
    def _is_known_by_something(self) -> Self:
        known = {"address", "certificate_name", "fingerprint"} & {key for key, value in self if value is not None}
        if len(known) != 1:
            found = f"{' and '.join(sorted(known))} are set" if known else "nothing tells its packets from others'"
            raise ValueError(f"{found}: set exactly one of address (UDP), certificate_name, fingerprint (RadSec)")
        return self

    def read_secret(self) -> bytes:
        """The shared secret. Raises ValueError, saying where it should come from, never what it is."""
        sources = {
            "secret": self.secret is not None,
            "secret_file": self.secret_file is not None,
            "secret_env": self.secret_env is not None,
        }
        chosen = [source for source, is_set in sources.items() if is_set]
        if not chosen and self.address is None:
            return tls.SECRET
        if len(chosen) != 1:
            found = f"{' and '.join(chosen)} are set" if chosen else "there is no secret"
            raise ValueError(f"{found}: set exactly one of secret_file, secret_env, secret")
        if self.secret_file is not None:
            where, secret = f"secret_file {self.secret_file}", secret_from_file(self.secret_file)
        elif self.secret_env is not None:
            where, secret = (
                f"secret_env {self.secret_env}",
                os.environb.get(os.fsencode(self.secret_env), b""),
            )
        else:
            where, secret = (
                "secret",
                self.secret.get_secret_value().encode() if self.secret is not None else b"",
            )
        if len(secret) < SHORTEST_SECRET:
            size = f"has {len(secret)} octets" if secret else "is empty"
            raise ValueError(f"{where} {size}: use {SHORTEST_SECRET} or more, better 16 (RFC 2865 §3)")
        return secret

    def client(self) -> Client:
        """The client as the listener has it. Raises ValueError like `read_secret`."""
        return Client(
            name=self.name,
            address=self.address,
            certificate_name=self.certificate_name,
            fingerprint=self.fingerprint,
            secret=self.read_secret(),
            networks=Networks(self.networks),
            realms=None if self.realms is None else frozenset(self.realms),
            groups=None if self.groups is None else frozenset(self.groups),
            lease=self.lease,
        )


class RadiusSettings(BaseModel):
    """`[radius]`: the listener."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[tuple[EndpointField, ...], AfterValidator(not_empty)] = (("0.0.0.0", 1813), ("::", 1813))  # noqa: S104
    """Addresses and UDP ports."""
    default_lease: DurationField = 8 * 3600
    """Seconds that a binding lasts if neither a DHCP lease nor the packet nor the client says."""
    longest_lease: DurationField = 24 * 3600
    """Seconds that it lasts at most after something was last heard of its session, whatever these say."""
    shared: tuple[PrefixField, ...] = ()
    """Networks that no client can bind users to: behind one address are many (NAT, terminal servers), or servers."""
    dictionaries: tuple[Path, ...] = ()
    """Directories whose files `dictionary*` add attributes to those that come with radius-bridge."""
    addresses: Annotated[tuple[SourceField, ...], AfterValidator(not_empty)] = DEFAULT
    """The attributes that name a user's addresses; of each IP version, the first one that does so counts."""

    @field_validator("dictionaries")
    @classmethod
    def _can_be_read(cls, directories: tuple[Path, ...]) -> tuple[Path, ...]:
        with_sites(directories)
        return directories

    @field_validator("addresses")
    @classmethod
    def _are_known(cls, sources: tuple[Source, ...], info: ValidationInfo) -> tuple[Source, ...]:
        if "dictionaries" in info.data:  # it is not if they cannot be read, which is told already
            Addresses(sources, with_sites(info.data["dictionaries"]))
        return sources

    def naming(self) -> Addresses:
        """The sources of addresses, ready for use. Raises ValueError if something is wrong by now."""
        return Addresses(self.addresses, with_sites(self.dictionaries))


class RadsecSettings(BaseModel):
    """`[radsec]`: RADIUS over TLS. The files are read anew when they change (`radius.renewal`), and at SIGHUP."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[tuple[EndpointField, ...], AfterValidator(not_empty)] = (("0.0.0.0", 2083), ("::", 2083))  # noqa: S104
    """Addresses and TCP ports."""
    dtls_listen: tuple[EndpointField, ...] = ()
    """Addresses and UDP ports of RADIUS/DTLS (RFC 7360); 2083 is its port. None: no DTLS."""
    certificate_file: Path
    """Ours, and the intermediate ones behind it."""
    key_file: Path
    ca_file: Path
    """The CAs of our peers' certificates."""
    crl_file: Path | None = None
    """Their revocation lists, one of every CA."""

    def read_tls(self) -> tls.Tls:
        """Reads the files. Raises ValueError that names the one that cannot be used."""
        try:
            return tls.load(tls.Files(self.certificate_file, self.key_file, self.ca_file, self.crl_file))
        except ValueError as error:
            raise ValueError(f"radsec.{error}") from None


class MetricsSettings(BaseModel):
    """`[metrics]`: counters for Prometheus."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: EndpointField
    """Address and TCP port of /metrics."""


class DatacentersSettings(BaseModel):
    """`[datacenters]`: where hosts are that need to know who is behind which address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    copies: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")], ...] = ()
    """Datacenters besides the home (`consul.datacenter`, or the agent's own) that get a copy of its users' groups."""
    urls: dict[str, PlainUrl] = {}
    """Consul's HTTP API in some of them, to be asked directly; the others are reached through `consul.url`."""

    @model_validator(mode="after")
    def _urls_are_of_copies(self) -> Self:
        unknown = sorted(self.urls.keys() - set(self.copies))
        if unknown:
            raise ValueError(f"urls names {', '.join(unknown)}: add it to copies, or take it out")
        return self


class Settings(BaseModel):
    """The whole file; `configfile.read(path, Settings)` reads it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consul: ConsulSettings = ConsulSettings()
    radius: RadiusSettings = RadiusSettings()
    names: NamesSettings = NamesSettings()
    group: tuple[GroupSettings, ...] = ()
    """Groups by attributes."""
    radsec: RadsecSettings | None = None
    """Without it, there is UDP only."""
    datacenters: DatacentersSettings = DatacentersSettings()
    metrics: MetricsSettings | None = None
    """Without it, nothing is served."""
    client: Annotated[tuple[ClientSettings, ...], AfterValidator(not_empty)]
    lease: tuple[LeaseSettings, ...] = ()
    """DHCP servers; without any, only packets say who is behind which address."""

    @model_validator(mode="after")
    def _clients_differ(self) -> Self:
        problems = [
            *_repetitions("client", "name", [client.name for client in self.client]),
            *_repetitions("client", "address", [str(client.address or "") for client in self.client]),
            *_repetitions("client", "certificate_name", [client.certificate_name or "" for client in self.client]),
            *_repetitions("client", "fingerprint", [(client.fingerprint or b"").hex() for client in self.client]),
            *_repetitions("lease", "name", [lease.name for lease in self.lease]),
            *_repetitions("lease", "listen", [endpoint(*lease.listen) if lease.listen else "" for lease in self.lease]),
            *_repetitions("lease", "path", [str(lease.path or "") for lease in self.lease]),
            *_repetitions("lease", "control_socket", [str(lease.control_socket or "") for lease in self.lease]),
        ]
        if self.radsec is None:
            problems += [
                f"client[{index}] ({client.name}) comes by RadSec, and there is no [radsec]"
                for index, client in enumerate(self.client)
                if client.address is None
            ]
        groups = {each.group for each in self.group}
        problems += [
            f"client[{index}].groups: no [[group]] makes {name}"
            for index, client in enumerate(self.client)
            for name in client.groups or ()
            if name not in groups
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _attributes_are_known(self) -> Self:
        self.users()
        return self

    def users(self) -> Users:
        """Names and groups, ready for use. Raises ValueError for an attribute that cannot tell them."""
        return users(self.names, self.group, self.radius.dictionaries)

    def clients(self) -> Clients:
        """The clients for the listener; secrets are read now. Raises ValueError if one is gone."""
        return Clients(client.client() for client in self.client)

    def rules(self) -> Rules:
        """What holds for all clients."""
        return Rules(
            self.radius.default_lease,
            Networks(self.radius.shared),
            self.radius.naming(),
            self.users(),
            self.radius.longest_lease,
        )


def _repetitions(table: str, key: str, values: list[str]) -> Iterable[str]:
    for index, value in enumerate(values):
        earlier = values.index(value)
        if value and earlier < index:
            yield f"{table}[{index}].{key} = {value!r}: {table}[{earlier}] has it too; each needs its own"
