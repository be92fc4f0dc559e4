"""What is kept of recordings, and who waits for whom."""

from __future__ import annotations

import threading

import pytest

from nodes.sdxs.checkpoint import captures
from nodes.sdxs.checkpoint.captures import Captures


class Made:
    """What is kept, and whether it was let go of."""

    def __init__(self) -> None:
        self.retired = threading.Event()

    def retire(self) -> None:
        self.retired.set()


def test_stopping_waits_for_nobody_and_keeps_nothing() -> None:
    begun, through, late = threading.Event(), threading.Event(), Made()

    def slow() -> Made:
        begun.set()
        assert through.wait(60)
        return late

    one: Captures[int, Made] = Captures(str)
    there = Made()
    assert one.get(1, lambda: there) is None
    assert one.wait(1, seconds=60)
    assert one.get(2, slow) is None
    assert begun.wait(60)
    one.stop()  # while it is being made
    assert there.retired.is_set()
    assert not through.is_set()
    through.set()
    assert late.retired.wait(60)
    assert one.keys == ()
    assert one.get(1, Made) is None


def test_more_than_are_kept_are_not_made_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    some: Captures[int, Made] = Captures(str, kept=2)

    def use(key: int) -> None:
        def make() -> Made:
            made.append(key)
            return Made()

        if some.get(key, make) is None:
            some.wait(key, seconds=60)

    for _ in range(5):
        for key in (1, 2, 3):
            use(key)
    assert made == [1, 2, 3]
    assert some.keys == (2, 3)
    monkeypatch.setattr(captures, "RETURN", 0.0)
    use(1)
    assert made == [1, 2, 3, 1]
    some.close()


def test_closing_does_not_wait_for_what_others_have_made() -> None:
    begun, through = threading.Event(), threading.Event()

    def slow() -> Made:
        begun.set()
        assert through.wait(60)
        return Made()

    one: Captures[int, Made] = Captures(str)
    other: Captures[int, Made] = Captures(str)
    assert one.get(1, slow) is None
    assert begun.wait(60)
    assert other.get(2, Made) is None
    other.close()  # while the thread is still at the other's
    assert not through.is_set()
    through.set()
    assert one.wait(1, seconds=60)
    assert other.get(2, Made) is None
    assert other.keys == ()
