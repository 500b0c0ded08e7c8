"""A command line whose commands are imported when they are called: each starts as quickly as what it needs."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


class LazyGroup(TyperGroup):
    """Takes the place of what `later` has announced when it is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is meant, as it is, and what it is given."""
        name, command, rest = super().resolve_command(ctx, args)
        where = getattr(getattr(command, "callback", None), "where", "")
        return name, imported(name or "", where) if where else command, rest


def lazy_app(about: str) -> typer.Typer:
    """A command line without commands as yet; `about` is its help."""
    return typer.Typer(
        cls=LazyGroup, help=about, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False
    )


def later(app: typer.Typer, name: str, where: str, summary: str, panel: str | None = None) -> None:
    """The command or group `name` is at `where` (`package.module:attribute`).

    `summary` is what the list of commands says of it: the first paragraph of its own help.
    """

    def announced() -> None:
        raise AssertionError(f"{name} was called without being imported")

    announced.where = where  # type: ignore[attr-defined]  # typer hands functions' attributes on, and nothing else
    app.command(name, help=summary, rich_help_panel=panel)(announced)


def imported(name: str, where: str) -> Any:
    """The command or group that is at `where`. Raises ImportError for what is not installed."""
    module, _, attribute = where.partition(":")
    found = getattr(import_module(module), attribute)
    app = typer.Typer(rich_markup_mode="markdown", pretty_exceptions_enable=False)
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=name)
    else:
        app.command(name)(found)
    return typer.main.get_group(app).commands[name]
