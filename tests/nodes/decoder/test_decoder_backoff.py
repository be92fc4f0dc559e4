from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.decoder.backoff import FIRST, pause
from nodes.decoder.faults import Fault, Reason

CHANCES = st.floats(0, 1, exclude_max=True)


@given(st.sampled_from(Reason), CHANCES)
def test_the_first_attempt_comes_soon(reason, chance):
    assert FIRST[0] <= pause(1, reason, chance) <= FIRST[1] <= 0.3


@given(st.integers(1, 10**9), CHANCES)
def test_a_server_that_is_back_is_tried_within_a_second(attempt, chance):
    for reason in (Reason.REFUSED, Reason.NOT_FOUND, Reason.TIMEOUT, Reason.ENDED):
        assert 0.1 <= pause(attempt, reason, chance) <= 1.0


def test_pauses_grow_with_the_attempts_and_spread_with_chance():
    longest = [pause(attempt, Reason.AUTHENTICATION, 0.999) for attempt in range(2, 9)]
    assert longest == sorted(longest)
    assert longest[-1] == pytest.approx(10, abs=0.02)
    assert pause(8, Reason.AUTHENTICATION, 0.0) == 0.1


def test_a_fault_can_be_sent_to_another_process():
    fault = Fault("cam is away", Reason.NAME, retry=True)
    copy = pickle.loads(pickle.dumps(fault))
    assert (str(copy), copy.reason, copy.retry) == ("cam is away", Reason.NAME, True)
