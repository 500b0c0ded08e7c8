"""`names try`: whom a name means, step by step."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict

from radius_bridge import configfile
from radius_bridge.attribute_settings import GroupSettings, NamesSettings, users
from radius_bridge.cli.output import FAILED, USAGE, JsonOption, fail, print_json
from radius_bridge.cli.radius_options import assign_text
from radius_bridge.cli.serve import DEFAULT_CONFIG
from radius_bridge.identity.macs import mac_of
from radius_bridge.policy.members import describe, user_group
from radius_bridge.radius.definitions import DictionaryError
from radius_bridge.radius.dictionary import Dictionary, with_sites
from radius_bridge.radius.packet import Attribute
from radius_bridge.radius.users import Users

app = typer.Typer(help="How user names are read.", no_args_is_help=True)


class _Radius(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    dictionaries: tuple[Path, ...] = ()


class _Settings(BaseModel):
    """What concerns names in the bridge's configuration; an engineer may read no secret of it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    names: NamesSettings = NamesSettings()
    group: tuple[GroupSettings, ...] = ()
    radius: _Radius = _Radius()


@app.callback()
def names() -> None:
    """How user names are read."""


@app.command("try")
def try_(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="What User-Name says.", show_default=False)] = "",
    attributes: Annotated[
        list[str] | None,
        typer.Option(
            "--attribute",
            "-a",
            metavar="NAME=VALUE",
            help="One more attribute of the packet, such as `Class=staff`; octets as text or as 0x1f2e. "
            "May be repeated.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE", help=f"The bridge's configuration; else {DEFAULT_CONFIG}, if it is there."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show step by step which user a login's attributes mean, and which groups they put him into.

    Exit code 1 if they mean no user. `radius-bridge names try 'CORP\\Alice' --attribute Class=staff`
    """
    reader, dictionary = _reader(config)
    pairs = [pair for text in ([f"User-Name={name}"] if name else []) for pair in _attributes(text, dictionary)]
    pairs += [pair for text in attributes or () for pair in _attributes(text, dictionary)]
    station = next((octets for number, octets in pairs if number == dictionary["Calling-Station-Id"].number), b"")
    told, steps, rules = reader.explain(pairs, mac_of(station.decode("ascii", "replace")))
    user = told.named.user
    if as_json:
        shown: dict[str, Any] = {
            "user": user or None,
            "not_bound": told.named.no_user,
            "realm": told.named.realm or None,
            "group": user_group(user).name if user else None,
            "groups": list(told.groups),
            "groups_left_out": told.left_out,
            "steps": [step._asdict() for step in steps],
        }
        print_json(shown)
    else:
        for step in steps:
            typer.echo(f"  {step.what:<20} {_plain(step.result)}")
        if user:
            typer.echo(f"user                   {user}   (grants name him {describe(user_group(user))})")
        else:
            typer.echo(f"user                   none: {told.named.no_user}")
        for rule in rules:
            kept = "" if rule.group in told.groups else "   (left out)"
            typer.echo(f"group                  {rule.group}   ({rule}){kept}")
    if not user:
        raise typer.Exit(FAILED)


def _reader(config: Path | None) -> tuple[Users, Dictionary]:
    path = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    if path is None:
        typer.echo(f"{DEFAULT_CONFIG} is not there: names are read as without configuration", err=True)
    try:
        settings = _Settings() if path is None else configfile.read(path, _Settings)
        return (
            users(settings.names, settings.group, settings.radius.dictionaries),
            with_sites(settings.radius.dictionaries),
        )
    except (configfile.ConfigError, DictionaryError) as error:
        fail(str(error), USAGE)
    except ValueError as error:
        fail(f"{path}: {error}", USAGE)


def _attributes(text: str, dictionary: Dictionary) -> list[Attribute]:
    try:
        return assign_text(text, dictionary)
    except ValueError as error:
        fail(str(error), USAGE)


def _plain(text: str) -> str:
    """Text that cannot move a terminal's cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
