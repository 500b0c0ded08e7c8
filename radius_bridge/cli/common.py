"""What the engineers' commands share: where Consul is, and what names mean."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import SecretStr, ValidationError

from radius_bridge.cli.output import USAGE, fail, warn
from radius_bridge.identity.names import NameRefused, Names, Naming
from radius_bridge.policy.expiry import NEVER, parse_duration
from radius_bridge.policy.members import GroupRef, Member, describe, parse_who, user_group, user_of
from radius_bridge.registry import datacenters
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.naming import read as read_naming
from radius_bridge.registry.settings import ConsulSettings, plain_url

T = TypeVar("T")

ForOption = Annotated[
    str,
    typer.Option("--for", metavar="DURATION", help="How long, for example 45m, 8h, 7d; without it, for good."),
]

PATIENCE = 3.0
"""Seconds for the rules of names: whoever must be blocked must not stay longer for their sake."""


def consul_settings() -> ConsulSettings:
    """Where Consul is, from the variables that Consul's own commands use.

    CONSUL_HTTP_ADDR, CONSUL_HTTP_SSL, CONSUL_CACERT, CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE, and
    RADIUS_BRIDGE_ROOT for the root key.
    """
    env = os.environ
    url = env.get("CONSUL_HTTP_ADDR") or "127.0.0.1:8500"
    if "://" not in url:
        secure = env.get("CONSUL_HTTP_SSL", "").lower() in {"1", "true"}
        url = f"{'https' if secure else 'http'}://{url}"
    values: dict[str, Any] = {"url": url, "root": env.get("RADIUS_BRIDGE_ROOT") or "befw"}
    if token := env.get("CONSUL_HTTP_TOKEN"):
        values["token"] = SecretStr(token)
    elif token_file := env.get("CONSUL_HTTP_TOKEN_FILE"):
        values["token_file"] = token_file
    if ca_file := env.get("CONSUL_CACERT"):
        values["ca_file"] = ca_file
    try:
        return ConsulSettings(**values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        fail(f"environment (CONSUL_HTTP_ADDR, RADIUS_BRIDGE_ROOT, …): {problems}", USAGE)


def fail_at_consul(settings: ConsulSettings, error: RegistryError) -> NoReturn:
    """Ends the command because Consul did not do what it needs."""
    where, said = f"Consul at {settings.url}", str(error)
    hint = "; CONSUL_HTTP_ADDR says where it is" if f"{where} cannot be reached" in said else ""
    fail(f"{said}{hint}" if where in said else f"{where}: {said}")


async def find_datacenters(consul: Consul, keys: Keys) -> dict[str, ConsulSettings]:
    """How to reach the datacenters that have the registry, home first.

    RADIUS_BRIDGE_DATACENTERS names them (`dc1,dc2=https://consul.dc2:8501`: dc2 through its own Consul), or what the
    bridge recorded does. Empty if neither says: then that of the Consul agent is all there is. Raises ValueError,
    RegistryError.
    """
    told = os.environ.get("RADIUS_BRIDGE_DATACENTERS", "")
    if told:
        places = [place.strip().partition("=") for place in told.split(",")]
        return {name: _in_datacenter(consul.settings, name, url) for name, _, url in places}
    found = await datacenters.read(consul, keys)
    return {} if found is None else {name: _in_datacenter(consul.settings, name, "") for name in found.all}


@asynccontextmanager
async def home_of(consul: Consul, keys: Keys) -> AsyncIterator[Consul]:
    """A connection to the home datacenter: this one, if nobody says that there are others. Raises as the above."""
    places = await find_datacenters(consul, keys)
    if not places:
        yield consul
        return
    async with Consul(next(iter(places.values()))) as home:
        yield home


def _in_datacenter(settings: ConsulSettings, name: str, url: str) -> ConsulSettings:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"RADIUS_BRIDGE_DATACENTERS: {name!r} is no datacenter: write dc1,dc2")
    try:
        return settings.in_datacenter(name, plain_url(url) if url else "")
    except ValueError as error:
        raise ValueError(f"RADIUS_BRIDGE_DATACENTERS: {name}: {error}") from None


def with_consul(work: Callable[[Consul, Keys], Awaitable[T]], *, at_home: bool = True) -> T:
    """Runs one command's work with a connection to Consul; what goes wrong there ends the command.

    With `at_home` it is the home datacenter's, which alone has all there is to read; else the agent's own.
    """
    settings = consul_settings()
    keys = Keys(settings.root)

    async def connected() -> T:
        async with Consul(settings) as consul:
            if not at_home:
                return await work(consul, keys)
            async with home_of(consul, keys) as home:
                return await work(home, keys)

    try:
        return asyncio.run(connected())
    except RegistryError as error:
        fail_at_consul(settings, error)
    except ValueError as error:
        fail(str(error), USAGE)


def parse_who_argument(text: str) -> Member:
    """WHO or MEMBER as typed, a user's name as a login would have it; ends the command when it cannot be meant."""
    try:
        member = parse_who(text)
        user = user_of(member) if isinstance(member, GroupRef) and not text.startswith("group:") else None
        return member if user is None else user_group(user_argument(user))
    except ValueError as error:
        fail(str(error), USAGE)


def user_argument(text: str) -> str:
    """The user whom a typed name means, by the rules that the bridge recorded; ends the command if it is nobody's."""
    # Of a plain name all rules say the same.
    naming = with_consul(_naming_at_home, at_home=False) if set(text) & set("@\\/$") else Naming()
    try:
        return Names(naming).typed(text)
    except NameRefused as error:
        fail(f"{text!r} {error}; `radius-bridge names try` shows how names are read, group:user.NAME is exact", USAGE)


def as_read(typed: str, member: Member) -> str:
    """What an error about `member` must add if that is not what was typed, letter for letter; else nothing."""
    exact = parse_who(typed)
    if exact == member or not isinstance(exact, GroupRef):
        return ""
    return f" ({typed!r} is read as {describe(member)}; group:{exact.name} is exactly what was typed)"


async def naming_of(consul: Consul, keys: Keys) -> Naming:
    """The rules of names that the bridge recorded; if they cannot be read, those without any realm, and a warning."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await read_naming(consul, keys) or Naming()
    except (RegistryError, TimeoutError) as error:
        return _without_rules(error)


async def _naming_at_home(consul: Consul, keys: Keys) -> Naming:
    """The same, where it is not known yet which datacenter is the home."""
    try:
        async with asyncio.timeout(PATIENCE), home_of(consul, keys) as home:
            return await read_naming(home, keys) or Naming()
    except (RegistryError, TimeoutError) as error:
        return _without_rules(error)


def _without_rules(error: Exception) -> Naming:
    why = str(error) or "Consul does not answer"
    warn(f"no rules of names ({why}): realms are taken as they are typed")
    return Naming()


def expiry_after(duration: str) -> float:
    """The expiry (epoch seconds or NEVER) that `--for` asks for."""
    if not duration:
        return NEVER
    try:
        return int(time.time()) + parse_duration(duration)
    except ValueError as error:
        fail(f"--for: {error}", USAGE)
