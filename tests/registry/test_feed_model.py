"""The change feed against a model of Consul: whatever happens, views converge and never hold what was taken away."""

from collections import deque
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from radius_bridge.registry.announcer import READ_ALL
from radius_bridge.registry.feed import Change, Class, Log, brief_record, decode_record, is_abandoned, record_key
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.kv import Entry
from radius_bridge.registry.positions import AWAY, Positions
from radius_bridge.registry.view import View

KEYS = Keys()
USERS = tuple(f"{KEYS.groups}$user.a$/192.0.2.{host}" for host in (1, 2))
GRANTS = (f"{KEYS.services}ssh_tcp_22/$user.a$",)
PREFIXES = (f"{KEYS.groups}$user.a$/", f"{KEYS.services}ssh_tcp_22/")
VALUES = st.sampled_from([b"1", b"2", None])


@dataclass
class Store:
    """Consul: what stands there, and what ever stood there."""

    data: dict[str, Entry] = field(default_factory=dict)
    feed: dict[str, Entry] = field(default_factory=dict)
    index: int = 10
    step: int = 0
    deleted: dict[str, int] = field(default_factory=dict)
    """Tombstones."""
    latest: dict[str, Change] = field(default_factory=dict)
    """What bindings tell: who was last where, and since which commit."""
    history: dict[str, list[tuple[int, bytes | None]]] = field(default_factory=dict)

    def commit(self, key: str, value: bytes | None) -> int:
        self.index += 1
        self.step += 1
        if value is None:
            self.data.pop(key, None)
            self.deleted[key] = self.index
        else:
            self.data[key] = Entry(key, self.index, raw=value)
        self.history.setdefault(key, []).append((self.step, value))
        self.latest[key] = Change(key, value, self.index)
        return self.index

    def write_record(self, key: str, value: bytes) -> None:
        self.index += 1
        self.feed[key] = Entry(key, self.index, raw=value)

    def read(self, prefix: str) -> tuple[int, list[Entry]]:
        """X-Consul-Index and entries."""
        entries = [entry for key, entry in self.data.items() if key.startswith(prefix)]
        tombs = [index for key, index in self.deleted.items() if key.startswith(prefix)]
        return max([entry.modify_index for entry in entries] + tombs, default=self.index), entries

    def feed_index(self) -> int:
        return max([e.modify_index for e in self.feed.values()], default=self.index)

    def copy(self) -> "Store":
        """A snapshot."""
        return replace(
            self,
            data=dict(self.data),
            feed=dict(self.feed),
            deleted=dict(self.deleted),
            latest=dict(self.latest),
        )

    def restore(self, saved: "Store") -> None:
        """Modify indexes are old afterwards; the next commit's index is larger than all before."""
        self.step += 1
        self.index += 1
        for key in self.data.keys() | saved.data.keys():
            value = saved.data[key].value if key in saved.data else None
            self.history.setdefault(key, []).append((self.step, value))
        fresh = saved.copy()
        self.data, self.feed, self.deleted, self.latest = fresh.data, fresh.feed, fresh.deleted, fresh.latest


class Writer:
    """A bridge: it commits, announces, and is killed in between."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lives = 0
        self.pending: deque[Change] = deque()
        self.begin_life()

    def begin_life(self) -> None:
        self.lives += 1
        self.key = record_key(KEYS, Class.BRIDGE, f"{self.name}-{self.lives}")
        self.log = Log(KEYS)
        self.index = 0
        self.pending.clear()

    def announce(self, store: Store, now: float) -> None:
        there = store.feed.get(self.key)
        if (there.modify_index if there else 0) != self.index:  # the check fails: Consul was restored
            self.begin_life()
            self.pending.append(READ_ALL)
        self.log.add(self.pending, now)
        store.write_record(self.key, self.log.record(now))
        self.index = store.index


class Reader:
    """A host: it looks at the feed, and reads prefixes when it must."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.view = View()
        self.positions = Positions(KEYS)
        self.index = 0
        self.looked_at = 0.0
        self.wanting: set[str] = set()
        self.reading: dict[str, tuple[int, list[Entry]] | None] = {}
        self.began: dict[str, int] = {}
        self.read_at: dict[str, int] = {}
        for prefix in PREFIXES:
            self.view.cover(prefix)

    def look(self, store: Store, now: float) -> None:
        begun = bool(self.index)
        news = self.positions.read(store.feed.values(), now)
        if news.rewound or store.feed_index() < self.index:
            self.positions.forget()
            self.positions.read(store.feed.values(), now)
            news.rewound = True
            news.changes.clear()
        self.index = store.feed_index()
        assert not news.forged
        if news.rewound or news.again:
            self.view.rewind()
            self.reading.clear()
        was_away = now - self.looked_at > AWAY
        self.looked_at = now
        if news.rewound or news.again or news.gaps or was_away or not begun:
            self.wanting = set(PREFIXES)
        for change in news.changes:
            self.view.apply(change)

    def begin(self, prefix: str, store: Store) -> None:
        self.began[prefix] = store.step
        self.wanting.discard(prefix)
        self.view.begin(prefix)
        self.reading[prefix] = None

    def complete(self, prefix: str, store: Store) -> None:
        index, entries = self.reading.pop(prefix) or store.read(prefix)
        self.view.complete(prefix, index, entries)
        self.read_at[prefix] = self.began[prefix]


class FeedMachine(RuleBasedStateMachine):
    """Three writers (one of them many short-lived ones), two followers, and everything that goes wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_800_000_000.0
        self.store = Store()
        self.writers = [Writer("x"), Writer("y")]
        self.readers = [Reader(), Reader()]
        self.commands = 0
        self.lost: set[str] = set()
        """Keys whose last change nobody announced."""
        self.saved: Store | None = None
        self.was_restored = False
        for reader in self.readers:
            self._settle(reader)

    @rule(reader=st.integers(0, 1))
    def catch_up(self, reader: int) -> None:
        """As most of the time: a host looks, and reads what it must at once."""
        self._settle(self.readers[reader])

    @rule(writer=st.integers(0, 1), key=st.sampled_from(USERS), value=VALUES, at_once=st.booleans())
    def commit(self, writer: int, key: str, value: bytes | None, at_once: bool) -> None:
        index = self.store.commit(key, value)
        self.lost.discard(key)
        self.writers[writer].pending.append(Change(key, value, index))
        if at_once:
            self.announce(writer)

    @rule(writer=st.integers(0, 1))
    def announce(self, writer: int) -> None:
        """Also without anything new: so a lost answer's repetition looks."""
        self.writers[writer].announce(self.store, self.now)

    @rule(writer=st.integers(0, 1))
    def kill(self, writer: int) -> None:
        self.lost |= {change.key for change in self.writers[writer].pending if change.key}
        self.writers[writer].begin_life()

    @precondition(lambda self: self.lost)
    @rule(writer=st.integers(0, 1))
    def repeat(self, writer: int) -> None:
        """The NAS repeats what was not answered; there is nothing left to commit."""
        self.writers[writer].pending.append(self.store.latest[self.lost.pop()])

    @rule(key=st.sampled_from(GRANTS), value=VALUES)
    def command(self, key: str, value: bytes | None) -> None:
        """An engineer's command: data and record in one transaction."""
        self.commands += 1
        index = self.store.commit(key, value)
        record = record_key(KEYS, Class.ENGINEER, f"c{self.commands}")
        self.store.feed[record] = Entry(record, index, raw=brief_record(KEYS, [Change(key, value, 0)], self.now))

    @rule(seconds=st.sampled_from([3.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        for key, entry in list(self.store.feed.items()):
            if is_abandoned(decode_record(entry.value), self.now) and all(w.key != key for w in self.writers):
                del self.store.feed[key]
                self.store.index += 1

    @rule(reader=st.integers(0, 1))
    def look(self, reader: int) -> None:
        self.readers[reader].look(self.store, self.now)

    @rule(reader=st.integers(0, 1))
    def restart(self, reader: int) -> None:
        self.readers[reader].restart()

    @rule(reader=st.integers(0, 1), prefix=st.sampled_from(PREFIXES))
    def begin_reading(self, reader: int, prefix: str) -> None:
        each = self.readers[reader]
        if prefix not in each.reading and each.index:
            each.begin(prefix, self.store)

    @rule(reader=st.integers(0, 1), prefix=st.sampled_from(PREFIXES))
    def consul_answers(self, reader: int, prefix: str) -> None:
        """The answer is of this moment, and arrives later."""
        if self.readers[reader].reading.get(prefix, ()) is None:
            self.readers[reader].reading[prefix] = self.store.read(prefix)

    @rule(reader=st.integers(0, 1), prefix=st.sampled_from(PREFIXES))
    def answer_arrives(self, reader: int, prefix: str) -> None:
        if prefix in self.readers[reader].reading:
            self.readers[reader].complete(prefix, self.store)

    @rule(reader=st.integers(0, 1), prefix=st.sampled_from(PREFIXES))
    def answer_is_lost(self, reader: int, prefix: str) -> None:
        each = self.readers[reader]
        if each.reading.pop(prefix, ()) != ():
            each.view.abort(prefix)
            each.wanting.add(prefix)

    # After 15 minutes; no announcement is as late (announcer.OUTAGE).
    @precondition(lambda self: not any(writer.pending for writer in self.writers))
    @rule()
    def consul_forgets_deletions(self) -> None:
        self.store.deleted.clear()

    @rule()
    def save(self) -> None:
        self.saved = self.store.copy()

    # What is committed, not announced and undone within these milliseconds is left to the publisher.
    @precondition(lambda self: self.saved and not any(writer.pending for writer in self.writers))
    @rule()
    def restore(self) -> None:
        assert self.saved is not None
        self.store.restore(self.saved)
        self.was_restored = True
        self.lost.clear()

    @invariant()
    def nothing_is_held_that_was_not_there_since_the_last_reading_began(self) -> None:
        for reader in self.readers:
            for prefix in PREFIXES:
                for key, value in reader.view.below(prefix).items():
                    past = self.store.history[key]
                    at = reader.read_at[prefix]
                    before = [each for step, each in past if step <= at][-1:]
                    assert value in before + [each for step, each in past if step > at]

    def teardown(self) -> None:
        for key in self.lost:  # the publisher's work
            self.writers[0].pending.append(self.store.latest[key])
        for writer in self.writers:
            writer.announce(self.store, self.now)
        for reader in self.readers:
            self._settle(reader)
        if self.was_restored and not all(self._agrees(reader) for reader in self.readers):
            self.writers[0].pending.append(READ_ALL)  # the publisher sees the difference
            self.writers[0].announce(self.store, self.now)
            for reader in self.readers:
                self._settle(reader)
        assert all(self._agrees(reader) for reader in self.readers)

    def _settle(self, reader: Reader) -> None:
        reader.look(self.store, self.now)
        for prefix in PREFIXES:
            if prefix in reader.reading:
                reader.complete(prefix, self.store)
            if prefix in reader.wanting | reader.view.incomplete:
                reader.begin(prefix, self.store)
                reader.complete(prefix, self.store)

    def _agrees(self, reader: Reader) -> bool:
        held = {key: value for prefix in PREFIXES for key, value in reader.view.below(prefix).items()}
        return held == {key: entry.value for key, entry in self.store.data.items()}


TestFeed = pytest.mark.timeout(300)(FeedMachine.TestCase)
TestFeed.settings = settings(
    max_examples=400,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
