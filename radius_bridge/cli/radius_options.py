"""What the commands that speak RADIUS share: the secret, and the dictionaries."""

import os
from pathlib import Path
from typing import Annotated

import typer

from radius_bridge.cli.output import USAGE, fail
from radius_bridge.radius.attributes import assign
from radius_bridge.radius.definitions import DictionaryError
from radius_bridge.radius.dictionary import Dictionary, with_sites
from radius_bridge.radius.packet import Attribute
from radius_bridge.secretfile import secret_from_file

SecretOption = Annotated[
    str, typer.Option("--secret", metavar="TEXT", help="The shared secret; other users of this host can see it here.")
]
SecretFileOption = Annotated[
    Path | None, typer.Option("--secret-file", metavar="FILE", help="A file that holds the shared secret.")
]
SecretEnvOption = Annotated[
    str, typer.Option("--secret-env", metavar="NAME", help="An environment variable that holds the shared secret.")
]
DictionariesOption = Annotated[
    list[Path] | None,
    typer.Option("--dictionaries", metavar="DIR", help="A directory with more dictionaries; may be repeated."),
]


def read_secret(secret: str, secret_file: Path | None, secret_env: str) -> bytes | None:
    """The secret that the options say, None without one; ends the command if that cannot be."""
    if sum((bool(secret), secret_file is not None, bool(secret_env))) > 1:
        fail("give only one of --secret-file, --secret-env and --secret", USAGE)
    if secret_file is not None:
        try:
            found = secret_from_file(secret_file)
        except ValueError as error:
            fail(f"--{str(error).replace('_', '-', 1)}", USAGE)
        if not found:
            fail(f"--secret-file {secret_file} is empty", USAGE)
        return found
    if secret_env:
        found = os.environb.get(os.fsencode(secret_env), b"")
        if not found:
            fail(f"--secret-env {secret_env}: that variable is empty or not set", USAGE)
        return found
    return secret.encode("utf-8", "surrogateescape") or None


def read_dictionaries(directories: list[Path] | None) -> Dictionary:
    """Our dictionary with those of the option; ends the command if one cannot be used."""
    try:
        return with_sites(directories or ())
    except DictionaryError as error:
        fail(str(error), USAGE)


def assign_text(text: str, dictionary: Dictionary) -> list[Attribute]:
    """The attributes that a typed NAME=VALUE makes; octets may be typed as text, or as 0x1f2e. Raises ValueError."""
    name, equals, value = text.partition("=")
    try:
        definition = dictionary[name.strip()]
    except KeyError:
        definition = None
    if definition is not None and definition.type.name == "octets" and not value.strip().startswith("0x"):
        text = f"{name}{equals}0x{value.encode('utf-8', 'surrogateescape').hex()}"
    return assign(text, dictionary)
