from hypothesis import given
from hypothesis import strategies as st

from nodes.backoff import FIRST, LONGEST, delay

CHANCE = st.floats(0, 1, exclude_max=True)


@given(CHANCE)
def test_the_first_wait_is_short_but_not_nothing(random):
    assert 0.1 <= delay(1, random=random) <= FIRST


@given(st.integers(1, 10_000), CHANCE)
def test_no_wait_is_longer_than_the_cap(attempt, random):
    assert 0.1 <= delay(attempt, random=random) <= LONGEST


@given(CHANCE)
def test_another_cap_is_reached_and_kept(random):
    assert 3.5 <= delay(50, random=random, longest=10.0) <= 10.0
    assert delay(1, random=random, longest=10.0) == delay(1, random=random)


@given(st.integers(1, 100), CHANCE)
def test_waits_grow_with_the_attempts(attempt, random):
    assert delay(attempt + 1, random=random) >= delay(attempt, random=random)


def test_chance_spreads_clients_over_most_of_the_wait():
    assert delay(9, random=0.999) > 2.5 * delay(9, random=0)
