"""Turns at an engine: who is painted when, with whom, and what happens when a pass goes wrong."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from nodes.sdxs.batching import Member, Passes
from nodes.sdxs.jobs import Job

GUARD = 60.0
"""seconds after which a test that stands still fails"""


class Gated:
    """Paints a picture as its source plus one; each pass waits until it is let go.

    Attributes:
        passes: sources' first values, one list for each pass that has begun.
        most_at_once: threads that were seen inside at the same time.
        blows: raised by a pass whose first values they fit.
    """

    def __init__(self, *, gated: bool = True) -> None:
        self.passes: list[list[int]] = []
        self.threads: list[str] = []
        self.most_at_once = 0
        self.blows: Callable[[list[int]], BaseException | None] = lambda values: None
        self._inside = 0
        self._gate = threading.Semaphore(0 if gated else 10**6)

    def let(self, passes: int = 1) -> None:
        self._gate.release(passes)

    def paint_jobs(self, jobs: Sequence[Job]) -> None:
        self._inside += 1
        self.most_at_once = max(self.most_at_once, self._inside)
        try:
            values = [int(job.image[0, 0, 0]) for job in jobs]
            self.passes.append(values)
            self.threads.append(threading.current_thread().name)
            assert self._gate.acquire(timeout=GUARD)
            if (error := self.blows(values)) is not None:
                raise error
            for job in jobs:
                job.out[...] = job.image + 1
        finally:
            self._inside -= 1


def job(value: int, size: tuple[int, int] = (8, 8)) -> Job:
    image = np.full((*size, 3), value, np.uint8)
    return Job(image, np.zeros_like(image), None)  # type: ignore[arg-type]


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < end, "still waiting"
        time.sleep(0.001)


class Rig:
    """Members in threads of their own, whose pictures come one at a time, in a known order."""

    def __init__(self, engine: Gated, **options: Any) -> None:
        self.engine = engine
        self.passes = Passes(engine, **options)  # type: ignore[arg-type]
        self.pool = ThreadPoolExecutor(16)
        self.members: dict[str, Member] = {}

    def bring(self, name: str, one: Job, **options: Any) -> Future[Job]:
        """Has a member paint a job, and returns once it paints or waits."""
        if name not in self.members:
            self.members[name] = self.passes.join(**options)
        begun, waiting = len(self.engine.passes), self.passes.waiting

        def work() -> Job:
            threading.current_thread().name = name
            self.members[name].paint([one])
            return one

        done = self.pool.submit(work)
        until(lambda: (len(self.engine.passes), self.passes.waiting) != (begun, waiting))
        return done


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig(Gated())
    yield made
    made.engine.let(1000)
    made.pool.shutdown()


def good(done: Future[Job]) -> bool:
    painted = done.result(GUARD)
    return bool((painted.out == painted.image + 1).all())


def test_a_lone_picture_is_painted_at_once_in_its_own_thread(rig: Rig) -> None:
    done = rig.bring("a", job(1))
    assert rig.engine.passes == [[1]]
    rig.engine.let()
    assert good(done)
    assert rig.engine.threads == ["a"]
    assert rig.members["a"].counts == {1: 1}


def test_all_that_wait_when_a_pass_ends_share_the_next(rig: Rig) -> None:
    first = rig.bring("a", job(1))
    others = [rig.bring(name, job(value)) for name, value in (("b", 2), ("c", 3), ("d", 4))]
    assert rig.engine.passes == [[1]]  # nobody is painted while another pass is under way
    rig.engine.let()
    assert good(first)
    until(lambda: len(rig.engine.passes) == 2)
    assert rig.engine.passes[1] == [2, 3, 4]
    # Who comes now does not get into a pass that has begun.
    late = rig.bring("a", job(5))
    rig.engine.let(2)
    assert all(good(one) for one in (*others, late))
    assert rig.engine.passes == [[1], [2, 3, 4], [5]]
    assert rig.engine.threads[1] == "b"  # who has waited longest paints
    assert rig.passes.counts == {1: 2, 3: 1}
    assert rig.members["a"].counts == {1: 2}
    assert rig.members["c"].counts == {3: 1}
    assert rig.engine.most_at_once == 1


def test_sizes_go_apart_the_oldest_with_its_mates_first(rig: Rig) -> None:
    big = (16, 8)
    done = [rig.bring("a", job(1))]
    for name, one in [
        ("b", job(2, big)),
        ("c", job(3)),
        ("d", job(4, big)),
        ("e", job(5)),
    ]:
        done.append(rig.bring(name, one))
    rig.engine.let(3)
    assert all(good(one) for one in done)
    assert rig.engine.passes == [[1], [2, 4], [3, 5]]


def test_who_wants_no_company_gets_none_and_the_device_all_the_same(rig: Rig) -> None:
    done = [rig.bring("a", job(1))]
    done.append(rig.bring("b", job(2), together=False))
    done += [rig.bring("c", job(3)), rig.bring("d", job(4))]
    done.append(rig.bring("e", job(5), together=False))
    rig.engine.let(4)
    assert all(good(one) for one in done)
    assert rig.engine.passes == [[1], [2], [3, 4], [5]]


def test_a_pass_holds_so_many_pictures_and_the_rest_go_into_the_next() -> None:
    rig = Rig(Gated(), most=2)
    done = [rig.bring(name, job(value)) for value, name in enumerate("abcdef")]
    rig.engine.let(4)
    assert all(good(one) for one in done)
    assert rig.engine.passes == [[0], [1, 2], [3, 4], [5]]
    rig.pool.shutdown()


def test_one_that_comes_again_and_again_lets_others_through(rig: Rig) -> None:
    done = [rig.bring("eager", job(0)), rig.bring("other", job(100, (16, 8)))]
    rig.engine.let()
    assert good(done[0])
    # Its next picture would have fitted the device just as well.
    until(lambda: len(rig.engine.passes) == 2)
    done.append(rig.bring("eager", job(1)))
    done.append(rig.bring("second", job(101, (16, 8))))
    rig.engine.let(3)
    assert all(good(one) for one in done)
    assert rig.engine.passes == [[0], [100], [1], [101]]


def test_many_at_once_all_get_their_own_pictures() -> None:
    engine = Gated(gated=False)
    passes = Passes(engine)  # type: ignore[arg-type]
    sizes = [(8, 8), (8, 8), (16, 8), (8, 8), (16, 8), (8, 8)]

    def work(number: int) -> int:
        member = passes.join(together=number != 3)
        fine = 0
        for value in range(100):
            one = job(number * 20 + value % 20, sizes[number])
            member.paint([one])
            fine += bool((one.out == one.image + 1).all())
        assert member.counts.total() == 100
        return fine

    with ThreadPoolExecutor(len(sizes)) as pool:
        assert list(pool.map(work, range(len(sizes)))) == [100] * len(sizes)
    assert engine.most_at_once == 1
    assert sum(pictures * times for pictures, times in passes.counts.items()) == 600
    assert max(passes.counts) <= 4


def test_an_error_of_one_is_raised_to_no_other(rig: Rig) -> None:
    rig.engine.blows = lambda values: ValueError("three") if 3 in values else None
    done = [rig.bring(name, job(value)) for value, name in enumerate("abcde", start=1)]
    rig.engine.let(10)
    for value, one in enumerate(done, start=1):
        if value == 3:
            with pytest.raises(ValueError, match="three"):
                one.result(GUARD)
        else:
            assert good(one)
    # Together, and when that failed each alone, in the thread that had the turn.
    assert rig.engine.passes == [[1], [2, 3, 4, 5], [2], [3], [4], [5]]
    assert rig.members["c"].counts == {}
    assert good(rig.bring("c", job(7)))


def test_where_memory_is_short_for_several_fewer_are_painted_together(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.engine.blows = lambda values: MemoryError("none") if len(values) > 2 else None
    done = [rig.bring(name, job(value)) for value, name in enumerate("abcde")]
    with caplog.at_level(logging.WARNING, "nodes.sdxs"):
        rig.engine.let(6)
        assert all(good(one) for one in done)
    assert rig.engine.passes == [[0], [1, 2, 3, 4], [1], [2], [3], [4]]
    assert [record.getMessage() for record in caplog.records] == [
        "there is no memory for 4 pictures of 8x8 at once: at most 2 are painted together from "
        "now on"
    ]
    done = [rig.bring(name, job(value)) for value, name in enumerate("abcde")]
    rig.engine.let(3)
    assert all(good(one) for one in done)
    assert rig.engine.passes[6:] == [[0], [1, 2], [3, 4]]


def test_one_picture_too_many_for_memory_is_an_error_of_its_own(rig: Rig) -> None:
    rig.engine.blows = lambda values: MemoryError("none")
    rig.engine.let()
    done = rig.bring("a", job(1))
    with pytest.raises(MemoryError, match="none"):
        done.result(GUARD)


class Torn(BaseException):
    """What no engine raises: the interpreter, or a user, ends a thread."""


def test_a_thread_torn_out_of_a_pass_leaves_the_others_to_the_next(rig: Rig) -> None:
    def blow(values: list[int]) -> BaseException | None:
        return Torn() if values == [2, 3, 4] else None

    rig.engine.blows = blow
    first = rig.bring("a", job(1))
    torn = rig.bring("b", job(2))
    others = [rig.bring("c", job(3)), rig.bring("d", job(4))]
    rig.engine.let(3)
    with pytest.raises(Torn):
        torn.result(GUARD)
    assert good(first)
    assert all(good(one) for one in others)
    assert rig.engine.passes == [[1], [2, 3, 4], [3, 4]]


def test_one_that_is_torn_while_it_waits_is_forgotten(rig: Rig) -> None:
    looked = threading.Event()

    def alive() -> None:
        looked.set()
        raise Torn

    first = rig.bring("a", job(1))
    gone = rig.bring("b", job(2), alive=alive)  # called once it has waited for a while
    behind = rig.bring("c", job(3))
    with pytest.raises(Torn):
        gone.result(GUARD)
    assert looked.is_set()
    rig.engine.let(10)
    assert good(first)
    assert good(behind)
    assert rig.engine.passes == [[1], [3]]


def test_one_that_waits_long_says_that_it_is_well(rig: Rig) -> None:
    said = threading.Semaphore(0)
    first = rig.bring("a", job(1))
    waits = rig.bring("b", job(2), alive=said.release)
    assert said.acquire(timeout=GUARD)
    assert said.acquire(timeout=GUARD)
    rig.engine.let(2)
    assert good(first)
    assert good(waits)


def test_other_work_waits_for_its_turn_and_others_for_it(rig: Rig) -> None:
    first = rig.bring("a", job(1))
    member = rig.passes.join()
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with member.alone():
            inside.set()
            assert leave.wait(GUARD)

    other = rig.pool.submit(work)
    until(lambda: rig.passes.waiting == 1)
    behind = rig.bring("b", job(2))
    assert not inside.is_set()
    rig.engine.let(2)
    assert good(first)
    assert inside.wait(GUARD)
    assert rig.engine.passes == [[1]]
    leave.set()
    other.result(GUARD)
    assert good(behind)

    def fail() -> None:
        with member.alone():
            raise KeyError("work")

    with pytest.raises(KeyError, match="work"):
        fail()
    rig.engine.let()
    assert good(rig.bring("a", job(3)))


class Device:
    """A device that goes on with a pass when the call that gave it has returned."""

    def __init__(self) -> None:
        self.ends: list[threading.Event] = []
        self.waits: list[int] = []

    def fence(self) -> Callable[[], None]:
        number, end = len(self.ends), threading.Event()
        self.ends.append(end)

        def wait() -> None:
            self.waits.append(number)
            assert end.wait(GUARD)

        return wait


def test_a_pass_is_made_up_when_the_device_has_ended_the_last() -> None:
    device = Device()
    rig = Rig(Gated(gated=False), fence=device.fence)
    rig.members |= {name: rig.passes.join() for name in "abc"}
    assert good(rig.bring("a", job(1)))  # it has returned, and the device works on it
    second = rig.bring("b", job(2))
    third = rig.bring("c", job(3))
    until(lambda: device.waits == [0])
    again = rig.bring("a", job(4))
    assert rig.engine.passes == [[1]]
    device.ends[0].set()
    assert all(good(one) for one in (second, third, again))
    assert rig.engine.passes == [[1], [2, 3, 4]]
    device.ends[1].set()
    rig.pool.shutdown()


def test_one_that_is_alone_gives_the_device_its_next_picture_without_waiting() -> None:
    device = Device()
    passes = Passes(Gated(gated=False), fence=device.fence)  # type: ignore[arg-type]
    member = passes.join()
    for value in range(3):
        member.paint([job(value)])
    assert (len(device.ends), device.waits) == (3, [])
    # Another thread's work goes to the device on another stream, so it waits in any case.
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(lambda: member.paint([job(9)]))
        until(lambda: device.waits == [2])
        device.ends[2].set()
        work.result(GUARD)
    for end in device.ends:
        end.set()
    other = passes.join()
    member.paint([job(1)])
    assert device.waits == [2, 3]
    device.ends[4].set()
    member.paint([job(1)])
    assert device.waits == [2, 3, 4]
    del other
    member.paint([job(1)])
    assert device.waits == [2, 3, 4]
