"""Settings that name attributes of packets: where the user's name is, what names mean, what makes groups."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainValidator, field_validator, model_validator

from radius_bridge.identity.names import Naming
from radius_bridge.radius.addresses import Source
from radius_bridge.radius.dictionary import with_sites
from radius_bridge.radius.users import USER_NAME, GroupRule, Users
from radius_bridge.registry.feed import DERIVED_PREFIX
from radius_bridge.setting_fields import not_empty


def _regex(value: Any) -> re.Pattern[str]:
    if not isinstance(value, str):
        raise ValueError("write a regular expression as text")
    try:
        return re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from None


def _derived_group(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(rf"{re.escape(DERIVED_PREFIX)}[A-Za-z0-9._+-]{{1,64}}", value):
        return value
    raise ValueError(f"write {DERIVED_PREFIX}NAME, such as {DERIVED_PREFIX}staff: letters, digits and . _ + - only")


def _source(value: Any) -> Source:
    match value:
        case str():
            return Source(value)
        case {"attribute": str(name), "pattern": str(pattern)} if len(value) == 2:
            try:
                return Source(name, _regex(pattern))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        case _:
            raise ValueError("""write the name of an attribute, or { attribute = "NAME", pattern = '^addr=(.+)$' }""")


RegexField = Annotated[re.Pattern[str], PlainValidator(_regex)]
SourceField = Annotated[Source, PlainValidator(_source)]
DerivedGroupField = Annotated[str, PlainValidator(_derived_group)]


class NamesSettings(BaseModel):
    """`[names]`: where the user's name is, and what names mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: Annotated[tuple[SourceField, ...], AfterValidator(not_empty)] = (USER_NAME,)
    """The attributes that name the user; the first one that names one counts."""
    realms: dict[str, str] = {}
    """What realms become; empty text takes one off. Others are kept."""
    slash_realms: bool = False
    """Whether `Realm/user` names a realm too, besides `user@realm` and `DOMAIN\\user`."""
    never: tuple[str, ...] = ("anonymous",)
    """Names never bound: `name` in any realm, `name@realm` in that one."""
    machines: Literal["nobody", "bind"] = "nobody"
    """Whether machines are bound as users, by the names `pc$` and `pc$@realm`."""

    @field_validator("realms")
    @classmethod
    def _realms_can_be_meant(cls, realms: dict[str, str]) -> dict[str, str]:
        Naming.check(realms, ())
        return realms

    @field_validator("never")
    @classmethod
    def _names_can_be_meant(cls, never: tuple[str, ...]) -> tuple[str, ...]:
        Naming.check({}, never)
        return never

    def naming(self) -> Naming:
        """The rules of names."""
        return Naming.check(
            self.realms, self.never, slash_realms=self.slash_realms, bind_machines=self.machines == "bind"
        )


class GroupSettings(BaseModel):
    """One `[[group]]`: an attribute that puts a session's addresses into a group."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: DerivedGroupField
    """The group: `radius.staff`."""
    attribute: str
    """Its name in the dictionary."""
    value: str | None = None
    """What it says; or a pattern."""
    pattern: RegexField | None = None
    """What is to be found in what it says."""

    @model_validator(mode="after")
    def _has_one_condition(self) -> Self:
        if (self.value is None) == (self.pattern is None):
            raise ValueError("set exactly one of value and pattern")
        return self

    def rule(self) -> GroupRule:
        """The rule as the packet path has it."""
        return GroupRule(self.attribute, self.group, self.value, self.pattern)


def users(names: NamesSettings, groups: Iterable[GroupSettings], dictionaries: Iterable[Path]) -> Users:
    """Names and groups, ready for use. Raises ValueError, naming the key, for an attribute that cannot tell them."""
    dictionary = with_sites(tuple(dictionaries))
    naming, sources = names.naming(), names.sources
    try:
        Users(naming, sources, (), dictionary)
    except ValueError as error:
        raise ValueError(f"names.sources: {error}") from None
    rules = [each.rule() for each in groups]
    for index, rule in enumerate(rules):
        try:
            Users(naming, sources, [rule], dictionary)
        except ValueError as error:
            raise ValueError(f"group[{index}].attribute: {error}") from None
    return Users(naming, sources, rules, dictionary)
