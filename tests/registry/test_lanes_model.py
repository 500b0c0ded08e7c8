"""Whatever bridges hear in whatever order, and whatever fails: in the end everybody has what the reference says."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.registry.lanes_model import violations


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_in_the_end_everybody_has_what_the_reference_says(seed: int) -> None:
    assert asyncio.run(violations(seed)) == []
