"""What a host needs to know of Consul, and what it makes of it: at any time what resolving everything would give."""

from collections.abc import Callable, Iterable

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.desired import ALLOW, DENY, CustomSet, Desired, Failsafe, Posture, Target
from agent.host import Host
from radius_bridge.policy.expiry import NEVER
from radius_bridge.policy.members import parse_prefix
from radius_bridge.policy.resolve import resolve
from radius_bridge.policy.services import Service, parse_ports
from radius_bridge.registry.feed import Change
from radius_bridge.registry.keys import Keys, Scope
from radius_bridge.registry.kv import Entry
from radius_bridge.registry.reading import for_host, read_grants, read_groups
from radius_bridge.registry.view import Changed, View

KEYS = Keys()
HERE = Scope("dc1", "web1")
NOW = 1000.0
SSH = Service("ssh_tcp_22", (parse_ports("22"),))
WEB = Service("web_tcp_80", (parse_ports("80"),))
ALICE = parse_prefix("10.0.0.1")


class Site:
    """A host, and a Consul that answers it at once."""

    def __init__(
        self,
        *services: Service,
        failsafe: tuple[Failsafe, ...] = (),
        posture: Posture = Posture(),  # noqa: B008 — it is immutable
        scope: Scope = HERE,
    ) -> None:
        self.view = View()
        self.host = Host(KEYS, scope, failsafe, self.view, NOW, posture)
        self.now = NOW
        self.stored: dict[str, tuple[bytes, int]] = {}
        self.index = 1
        self.reads: list[str] = []
        self.told: dict[str, set[str]] = {}
        if services:
            self.host.protect(services)

    def put(self, **values: object) -> None:
        """Writes keys below the root: `put(**{"$alias$/$a$/10.0.0.1": 2000})`; None deletes."""
        for below, value in values.items():
            key = f"{KEYS.root}/{below}"
            self.index += 1
            raw = None if value is None else str(value).encode()
            if raw is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = (raw, self.index)
            self._look(self.view.apply(Change(key, raw, self.index)))

    def settle(self, answer: Callable[[str], bool] = lambda _: True) -> Desired:
        """Reads what the host asks for (if `answer`), until it asks for no more."""
        while True:
            step = self.host.settle(self.now)
            for name, members in step.changed.items():
                self.told.setdefault(name, set()).update(map(str, members))
            for prefix in step.uncover:
                self.view.uncover(prefix)
            for prefix in step.cover:
                self.view.cover(prefix)
                if answer(prefix):
                    self.read(prefix)
            if not step.cover:
                return self.host.desired()

    def read(self, prefix: str) -> None:
        """A whole read of a prefix arrives."""
        self.reads.append(prefix.removeprefix("befw/"))
        self.view.begin(prefix)
        entries = [
            Entry(key, index, raw=value) for key, (value, index) in self.stored.items() if key.startswith(prefix)
        ]
        self._look(self.view.complete(prefix, self.index, entries))

    def _look(self, changed: Iterable[Changed]) -> None:
        for change in changed:
            self.host.look(change.key)


def members(desired: Desired, name: str = SSH.name) -> dict[str, float]:
    return {str(prefix): end for prefix, end in desired.members[name].items()}


def test_nothing_may_be_programmed_before_everything_that_decides_was_read_once() -> None:
    site = Site()
    site.put(**{"$service$/ssh_tcp_22/$user.alice$": -1, "$alias$/$user.alice$/10.0.0.1": 2000})
    assert site.host.waiting_for()[0] == "services"
    site.settle()
    assert not site.host.is_ready()
    site.host.protect([SSH])
    site.settle(lambda prefix: "$alias$" not in prefix)
    assert not site.host.is_ready()
    assert site.host.waiting_for() == ["befw/$alias$/$user.alice$/"]
    site.read("befw/$alias$/$user.alice$/")
    assert site.host.is_ready()
    assert members(site.settle()) == {"10.0.0.1": 2000}


def test_only_what_this_host_enforces_is_read() -> None:
    site = Site(SSH)
    site.put(
        **{
            "$service$/dc1/web1/ssh_tcp_22/$staff$": -1,
            "$service$/ssh_tcp_22/$old$": 10,
            "$service$/dc1/web2/ssh_tcp_22/$other$": -1,
            "$service$/web_tcp_80/$other$": -1,
            "$alias$/$staff$/$user.alice$": -1,
            "$alias$/$other$/$user.bob$": -1,
        }
    )
    site.settle()
    assert sorted(site.reads) == [
        "$alias$/$staff$/",
        "$alias$/$user.alice$/",
        *sorted(f"$ipset$/{scope}{name}/" for name in (ALLOW, DENY) for scope in ("", "dc1/", "dc1/web1/")),
        *sorted(f"$service$/{scope}ssh_tcp_22/" for scope in ("", "dc1/", "dc1/web1/")),
    ]


def test_the_three_scopes_add_up_and_the_latest_end_counts() -> None:
    site = Site(SSH)
    site.put(
        **{
            "$service$/ssh_tcp_22/10.0.0.1": 2000,
            "$service$/dc1/ssh_tcp_22/10.0.0.1": 3000,
            "$service$/dc1/web1/ssh_tcp_22/10.0.0.0/24": -1,
            "$service$/dc2/ssh_tcp_22/10.0.0.9": -1,
        }
    )
    assert members(site.settle()) == {"10.0.0.1": 3000, "10.0.0.0/24": NEVER}
    site.put(**{"$service$/dc1/ssh_tcp_22/10.0.0.1": None})
    assert members(site.settle()) == {"10.0.0.1": 2000, "10.0.0.0/24": NEVER}


def test_an_unusual_spelling_counts_and_leaves_nothing_behind() -> None:
    site = Site(SSH)
    site.put(**{"$service$/ssh_tcp_22/2001:DB8::1": 2000, "$service$/ssh_tcp_22/2001:db8::1": 1500})
    assert members(site.settle()) == {"2001:db8::1": 2000}
    site.put(**{"$service$/ssh_tcp_22/2001:DB8::1": "nonsense"})
    assert members(site.settle()) == {"2001:db8::1": 1500}
    site.put(**{"$service$/ssh_tcp_22/2001:DB8::1": None})
    assert members(site.settle()) == {"2001:db8::1": 1500}
    assert site.host.problems() == []
    assert site.host._spellings == {}


def test_what_cannot_be_read_grants_nothing_denies_for_good_and_is_named_as_long_as_it_is_there() -> None:
    site = Site(SSH)
    site.put(
        **{
            "$service$/ssh_tcp_22/10.0.0.8": "nonsense",
            "$service$/ssh_tcp_22/not an address": -1,
            "$service$/ssh_tcp_22/": "",
            "$ipset$/rules_deny/10.6.6.0/24": "nonsense",
        }
    )
    desired = site.settle()
    assert members(desired) == {}
    assert members(desired, DENY) == {"10.6.6.0/24": NEVER}
    assert len(site.host.problems()) == 3
    site.put(
        **{
            "$service$/ssh_tcp_22/10.0.0.8": 2000,
            "$service$/ssh_tcp_22/not an address": None,
            "$ipset$/rules_deny/10.6.6.0/24": None,
        }
    )
    desired = site.settle()
    assert members(desired) == {"10.0.0.8": 2000}
    assert members(desired, DENY) == {}
    assert site.host.problems() == []


def test_an_address_in_two_spellings_stays_as_long_as_one_of_them_is_there() -> None:
    site = Site(SSH)
    site.put(**{"$service$/ssh_tcp_22/2001:DB8::1": 2000, "$service$/ssh_tcp_22/2001:db8::1": 3000})
    assert members(site.settle()) == {"2001:db8::1": 3000}
    site.put(**{"$service$/ssh_tcp_22/2001:db8::1": None})
    assert members(site.settle()) == {"2001:db8::1": 2000}
    site.put(**{"$service$/ssh_tcp_22/2001:DB8::1": None})
    assert members(site.settle()) == {}


def test_a_group_that_leads_nowhere_any_more_is_forgotten_and_read_again_when_it_matters() -> None:
    site = Site(SSH)
    site.put(**{"$service$/ssh_tcp_22/$user.alice$": -1, "$alias$/$user.alice$/10.0.0.1": 2000})
    site.settle()
    site.put(**{"$service$/ssh_tcp_22/$user.alice$": None})
    assert members(site.settle()) == {}
    assert "befw/$alias$/$user.alice$/" not in site.view.covered
    site.put(**{"$alias$/$user.alice$/10.0.0.1": None, "$alias$/$user.alice$/10.0.0.2": 2000})
    site.put(**{"$service$/ssh_tcp_22/$user.alice$": -1})
    assert members(site.settle()) == {"10.0.0.2": 2000}


def test_a_service_that_comes_later_is_enforced_when_its_grants_have_been_read() -> None:
    site = Site(SSH)
    site.put(**{"$service$/web_tcp_80/10.0.0.1": 2000})
    site.settle()
    site.host.protect([WEB, SSH])
    desired = site.settle(lambda _: False)
    assert desired.services == (SSH,)
    assert not site.host.is_ready()
    for prefix in site.host.waiting_for():
        site.read(prefix)
    desired = site.settle()
    assert desired.services == (SSH, WEB)
    assert members(desired, WEB.name) == {"10.0.0.1": 2000}


def test_a_service_that_goes_and_comes_at_once_has_its_grants_again() -> None:
    site = Site(SSH)
    site.put(**{"$service$/ssh_tcp_22/10.0.0.1": 2000})
    site.settle()
    site.host.protect([])
    site.host.protect([SSH])
    assert members(site.settle()) == {"10.0.0.1": 2000}


def test_a_restored_consul_keeps_nobody_out_and_nothing_waits_for_it() -> None:
    site = Site(SSH)
    site.put(**{"$service$/ssh_tcp_22/10.0.0.1": 2000})
    site.settle()
    assert site.host.is_ready()
    site.view.rewind()
    assert site.host.is_ready()
    assert members(site.settle()) == {"10.0.0.1": 2000}


def test_a_step_names_no_more_than_what_changed() -> None:
    site = Site(SSH)
    site.put(**{"$service$/ssh_tcp_22/$user.alice$": -1})
    site.put(**{f"$alias$/$user.alice$/10.0.0.{number}": 2000 for number in range(200)})
    site.settle()
    site.told.clear()
    site.put(**{"$alias$/$user.alice$/10.0.0.7": 2001, "$alias$/$user.alice$/10.0.0.8": None})
    site.settle()
    assert site.told == {SSH.name: {"10.0.0.7", "10.0.0.8"}}
    assert site.host.count(SSH.name, NOW) == (199, 2000)
    assert site.host.count("unknown", NOW) == (0, None)


@pytest.mark.parametrize(
    ("scope", "isolated"),
    [
        (Scope("dc1", "web1"), {"10.1.0.0/16", "10.2.0.0/16", "10.9.0.0/16"}),
        (Scope("dc1", "web2"), {"10.9.0.0/16"}),
        (Scope("dc2", "web1"), set()),
    ],
)
def test_a_segment_is_isolated_on_chosen_nodes_and_datacenters(scope: Scope, isolated: set[str]) -> None:
    site = Site(SSH, scope=scope)
    site.put(
        **{
            "$alias$/$guests$/10.1.0.0/16": -1,
            "$alias$/$guests$/10.2.0.0/16": -1,
            "$ipset$/dc1/web1/rules_deny/$guests$": -1,
            "$ipset$/dc1/rules_deny/10.9.0.0/16": -1,
        }
    )
    assert set(members(site.settle(), DENY)) == isolated


def test_custom_sets_have_members_like_the_overrides_and_one_that_shuts_out_does_not_open() -> None:
    sets = (CustomSet("partners", Target.ACCEPT), CustomSet("scanners", Target.DROP))
    site = Site(SSH, posture=Posture(sets=sets))
    site.put(
        **{
            "$alias$/$scanning$/10.0.0.5": 2000,
            "$ipset$/scanners/$scanning$": -1,
            "$ipset$/dc1/scanners/10.0.0.6": "nonsense",
            "$ipset$/partners/10.0.0.7": "nonsense",
            "$ipset$/dc1/web1/partners/10.0.0.8": 3000,
            "$ipset$/unknown/10.0.0.9": -1,
        }
    )
    desired = site.settle()
    assert members(desired, "scanners") == {"10.0.0.5": 2000, "10.0.0.6": NEVER}
    assert members(desired, "partners") == {"10.0.0.8": 3000}
    assert desired.names == (ALLOW, DENY, "partners", "scanners", SSH.name)
    assert set(desired.members) == set(desired.names)


def test_the_failsafe_is_passed_on() -> None:
    failsafe = Failsafe((parse_prefix("10.9.0.0/16"),), SSH.ports)
    assert Site(SSH, failsafe=(failsafe,)).settle().failsafe == (failsafe,)


def test_a_grant_of_an_override_and_a_set_of_a_service_mean_nothing() -> None:
    site = Site(SSH)
    site.put(**{"$service$/rules_allow/10.0.0.1": -1, "$ipset$/ssh_tcp_22/10.0.0.1": -1})
    desired = site.settle()
    assert members(desired, ALLOW) == members(desired) == {}


scopes = st.sampled_from(["", "dc1/", "dc1/web1/", "dc2/", "dc1/web2/"])
who = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.0/24", "::1", "$a$", "$b$", "$user.c$", "$d$"])
grants = st.tuples(
    st.sampled_from(["$service$/", "$ipset$/"]), scopes, st.sampled_from([SSH.name, WEB.name, ALLOW, DENY])
)
folders = st.one_of(
    grants.map("".join), st.sampled_from(["$alias$/$a$", "$alias$/$b$", "$alias$/$user.c$", "$alias$/$d$"])
)
values = st.one_of(st.none(), st.just("x"), st.just(-1), st.integers(int(NOW) - 5, int(NOW) + 40))


class AnyStore(RuleBasedStateMachine):
    """Any writes, any services, time: what is enforced is what resolving the stored data gives."""

    @initialize(services=st.sets(st.sampled_from([SSH, WEB])))
    def begin(self, services: set[Service]) -> None:
        self.site = Site()
        self.site.host.protect(services)

    @rule(services=st.sets(st.sampled_from([SSH, WEB])))
    def protect(self, services: set[Service]) -> None:
        self.site.host.protect(services)

    @rule(folder=folders, member=who, value=values)
    def write(self, folder: str, member: str, value: object) -> None:
        self.site.put(**{f"{folder}/{member}": value})

    @rule(seconds=st.integers(1, 10))
    def time_passes(self, seconds: int) -> None:
        self.site.now += seconds

    @rule()
    def everything_is_read_again(self) -> None:
        for prefix in self.site.view.covered:
            self.site.read(prefix)

    @invariant()
    def what_is_enforced_is_what_resolving_everything_gives(self) -> None:
        desired = self.site.settle()
        stored = [Entry(key, index, raw=value) for key, (value, index) in self.site.stored.items()]
        groups = read_groups(KEYS, [entry for entry in stored if entry.key.startswith(KEYS.groups)]).data
        by_name = {
            **for_host(read_grants(KEYS, [e for e in stored if e.key.startswith(KEYS.services)]).data, HERE),
            ALLOW: {},
            DENY: {},
        }
        sets = for_host(read_grants(KEYS, [e for e in stored if e.key.startswith(KEYS.sets)], deny=DENY).data, HERE)
        by_name |= {name: sets[name] for name in (ALLOW, DENY) if name in sets}
        for name, enforced in desired.members.items():
            assert enforced == resolve(by_name.get(name, {}), groups, self.site.now)
        assert set(desired.members) == {ALLOW, DENY, *(service.name for service in desired.services)}
        assert self.site.host.is_ready()


TestAnyStore = AnyStore.TestCase
TestAnyStore.settings = settings(max_examples=100, stateful_step_count=30)
