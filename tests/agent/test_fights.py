"""Another writer who changes the same thing again and again is answered ever more slowly, and told."""

from agent.fights import LONGEST, OFTEN, WINDOW, Fights


def _fought(times: int, every: float = 1.0) -> tuple[Fights, float]:
    fights, now = Fights(), 1000.0
    for _ in range(times):
        fights.note("rules", now, "nft (pid 7)")
        now += every
    return fights, now - every


def test_a_few_repairs_are_no_fight() -> None:
    fights, now = _fought(OFTEN - 1)
    assert fights.may("rules", now)
    assert fights.alarms(now) == []
    assert fights.next(now) is None


def test_many_repairs_over_a_long_time_are_no_fight() -> None:
    fights, now = _fought(20, every=WINDOW / 3)
    assert fights.may("rules", now)
    assert fights.alarms(now) == []


def test_a_fight_slows_down_step_by_step_and_names_the_other() -> None:
    fights, now = _fought(OFTEN)
    pauses = []
    for _ in range(7):
        assert not fights.may("rules", now)
        assert fights.may("rb4h.ssh_tcp_22", now)
        until = fights.next(now)
        assert until is not None
        pauses.append(until - now)
        assert fights.may("rules", until)
        now = until
        fights.note("rules", now, "")
    assert pauses == [2, 4, 8, 16, 30, 30, 30]
    (alarm,) = fights.alarms(now)
    assert "nft (pid 7)" in alarm
    assert f"every {LONGEST:g} s" in alarm


def test_a_fight_is_over_when_nobody_changes_anything_for_a_while() -> None:
    fights, now = _fought(OFTEN)
    assert fights.alarms(now + WINDOW) == []
    assert fights.may("rules", now + WINDOW)


def test_a_clock_that_is_set_back_holds_nothing_up() -> None:
    fights, now = _fought(OFTEN)
    assert fights.may("rules", now - 3600)
