from hypothesis import given
from hypothesis import strategies as st

from radius_bridge.registry.parts import PART, Part, parts, slices

FOLDER = "befw/$alias$/"
KEYS = st.lists(st.text("ab$/%", max_size=6), unique=True, max_size=60).map(lambda k: sorted(FOLDER + e for e in k))


@given(KEYS, st.integers(min_value=1, max_value=10))
def test_every_key_is_in_exactly_one_part_and_no_part_is_too_large(keys: list[str], limit: int) -> None:
    found = list(parts(FOLDER, keys, limit))
    assert [place for part in found for place in range(part.first, part.end)] == list(range(len(keys)))
    for part in found:
        members = keys[part.first : part.end]
        assert len(members) <= limit
        if part.alone:
            assert members == [part.prefix]
        else:
            assert members == [key for key in keys if key.startswith(part.prefix)]


@given(KEYS, st.integers(min_value=1, max_value=10))
def test_a_part_never_reaches_out_of_its_folder(keys: list[str], limit: int) -> None:
    assert all(part.prefix.startswith(FOLDER) for part in parts(FOLDER, keys, limit))


def test_a_small_folder_is_one_part() -> None:
    keys = [f"{FOLDER}$staff$/$user.{n:04}$" for n in range(PART)]
    assert list(parts(FOLDER, keys)) == [Part(FOLDER, alone=False, first=0, end=PART)]


def test_a_folder_that_is_a_key_too_is_read_alone() -> None:
    keys = [FOLDER, *(f"{FOLDER}{n}" for n in range(10, 15))]
    found = list(parts(FOLDER, keys, 3))
    assert found[0] == Part(FOLDER, alone=True, first=0, end=1)


def test_slices_leave_nothing_out() -> None:
    assert [tuple(each) for each in slices((1, 2, 3, 4, 5), 2)] == [(1, 2), (3, 4), (5,)]
