"""Templates of rules: the built-in ones and a site's own. Rules are text with `$blocks` that the agent fills in."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

_MAX_SIZE = 1 << 20


class TemplateError(ValueError):
    """A site's template cannot be used. The message names the file, what is wrong, and the way out."""


@dataclass(frozen=True, slots=True)
class RuleTemplate:
    """Text with `$blocks`, each on a line of its own."""

    text: str
    origin: str = ""
    """The file of a site's own template; empty for a built-in one."""

    def fill(self, blocks: Mapping[str, Iterable[str]]) -> list[str]:
        """The lines with the rules of each block in its place, without comments and empty lines."""
        rules = "\n".join(line for line in self.text.splitlines() if not line.lstrip().startswith("#"))
        filled = Template(rules).substitute({name: "\n".join(lines) for name, lines in blocks.items()})
        return [line for line in filled.splitlines() if line.strip()]


def built_in(name: str) -> RuleTemplate:
    """The template that comes with the agent: `iptables.rules` or `nftables.nft`."""
    return RuleTemplate(resources.files("agent.dataplane").joinpath("templates", name).read_text())


def site_template(path: Path, name: str) -> RuleTemplate:
    """A site's template in place of the built-in one called `name`. Raises TemplateError.

    It must have every block of the built-in one exactly once, and no other: a block that is left out would open or
    close what nobody meant to. Its own rules must be for our chains: elsewhere they would be added with every change,
    and never go.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_SIZE + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"template {path}: {error}") from error
    if len(text) > _MAX_SIZE:
        raise TemplateError(f"template {path}: larger than 1 MiB")
    wanted, found = set(_blocks(path, built_in(name).text)), Counter(_blocks(path, text))
    way_out = "begin with what `radius-bridge-agent template` prints"
    if missing := sorted(wanted - found.keys()):
        raise TemplateError(f"template {path}: the block ${missing[0]} is missing; {way_out}")
    if unknown := sorted(found.keys() - wanted):
        raise TemplateError(f"template {path}: there is no block ${unknown[0]}; {way_out}")
    if twice := sorted(block for block, times in found.items() if times > 1):
        raise TemplateError(f"template {path}: the block ${twice[0]} is there twice")
    for number, line in _outside(name, text):
        where = f"template {path}, line {number}: {line[:80]!r}"
        raise TemplateError(f"{where} is not for a chain of ours; what is for others belongs to the host's own rules")
    return RuleTemplate(text, str(path))


def _blocks(path: Path, text: str) -> list[str]:
    """The names of the blocks outside comments, as often as they are there."""
    names = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        for match in Template.pattern.finditer(line):
            name = match["named"]
            if name is None or line.strip() != f"${name}":
                raise TemplateError(f"template {path}, line {number}: a block stands on a line of its own: $name")
            names.append(name)
    return names


def _outside(name: str, text: str) -> Iterator[tuple[int, str]]:
    """What is neither a block nor a comment, nor for our chains: with iptables one begins each line."""
    depth = 0
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith(("#", "$")):
            continue
        ours = line.startswith("-A RB-") if name == "iptables.rules" else depth or line == "table inet radius_bridge {"
        if not ours:
            yield number, line
        depth += line.count("{") - line.count("}")
