"""Reading a TOML configuration file into a model; all that is wrong with it comes in one error."""

import difflib
import re
import tomllib
import types
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

_M = TypeVar("_M", bound=BaseModel)

_SECRETS = {"secret", "token", "password"}

_PASSWORD = re.compile("//.*@")
"""Of a URL with a password in it."""


class ConfigError(Exception):
    """A configuration file cannot be used. `str()` has one line for each thing that is wrong."""


def read(path: Path, model: type[_M]) -> _M:
    """Reads `path` into `model`.

    Raises ConfigError: every line names the file, the key, its value (never a secret) and what is allowed.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 (octet {error.start}); TOML files are") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    try:
        return model.model_validate(table)
    except ValidationError as error:
        problems = [f"{path}: {_describe(problem, model)}" for problem in error.errors(include_url=False)]
        raise ConfigError("\n".join(problems)) from None


def _describe(problem: Any, model: type[BaseModel]) -> str:
    location = problem["loc"]
    key = _dotted(location)
    if problem["type"] == "extra_forbidden":
        known = _keys(model, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        # Its value is not shown: a misspelt `secret` has a secret as its value.
        return f"{key}: no such key{hint}; allowed here: {', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"{key}: is missing"
    if not key:
        return str(message)
    value = problem["input"]
    if isinstance(value, dict | list) or not _SECRETS.isdisjoint(location) or _PASSWORD.search(str(value)):
        return f"{key}: {message}"
    return f"{key} = {value!r}: {message}"


def _dotted(location: tuple[str | int, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """The keys that the table at `location` may have."""
    at: Any = model
    for part in location:
        at = _inner(at) if isinstance(part, int) else _model(at.model_fields[part].annotation)
    return list(_model(at).model_fields)


def _inner(annotation: Any) -> Any:
    return get_args(annotation)[0]


def _model(annotation: Any) -> Any:
    """The table in `annotation` where that is a choice between it and None."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(choice for choice in get_args(annotation) if choice is not types.NoneType)
    return annotation
