"""Turns at one engine: pictures that wait for it at the same time are painted in one pass.

There is no thread for it and no clock. Who comes while nobody paints begins at once, so that a
lone picture never waits for company. Who comes while somebody paints waits; when that pass ends,
the one who has waited longest paints the next, for itself and for all who wait with pictures of
the same size. So nobody waits for more passes than there are others before it.

A GPU goes on working when a call that gave it a pass has returned. Among several members the next
pass is made up only when the last one has ended there, or else each would hold one picture.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from nodes.sdxs.jobs import Job

if TYPE_CHECKING:
    from nodes.sdxs.engine import OneStep

MOST: Final = 4
"""Pictures of one pass. Compiled and captured networks are made for each number, and few kept."""
LOOK_ROUND: Final = 1.0
"""Seconds after which one that waits says that it is well."""

Fence = Callable[[], Callable[[], None]]
"""Called after a pass, in the thread that painted: gives what waits until the device is done."""
Kind = tuple[int, int, bool]

_log = logging.getLogger("nodes.sdxs")


@dataclass(eq=False, slots=True)
class _Request:
    """Jobs of one member, or none for work of another sort.

    Attributes:
        jobs: of one size.
        kind: whose equals go into one pass; None shares its pass with nobody.
        done: set last, when all that the other fields say is true.
        error: that of the jobs, if they have one.
        pictures: how many there were in their pass.
    """

    jobs: Sequence[Job]
    kind: Kind | None
    done: bool = False
    error: Exception | None = None
    pictures: int = 0


class Passes:
    """The turns at one engine.

    Args:
        engine: whose `paint_jobs` is never called by two threads at a time. Nobody else calls it.
        fence: of its device; None where a pass has ended when `paint_jobs` returns.
        most: pictures of one pass, at least 1.

    Attributes:
        engine: See above.
        counts: how many passes there were of each number of pictures.
        most_members: how many have painted here at the same time.
    """

    def __init__(self, engine: OneStep, *, fence: Fence | None = None, most: int = MOST) -> None:
        self.engine = engine
        self.counts: Counter[int] = Counter()
        self.most_members = 0
        self._fence = fence
        self._most = most
        self._fitting: dict[Kind, int] = {}
        self._changed = threading.Condition()
        self._waiting: list[_Request] = []
        self._busy = False
        self._unfinished: Callable[[], None] | None = None
        self._last = 0
        self._members: weakref.WeakSet[Member] = weakref.WeakSet()

    def join(self, *, together: bool = True, alive: Callable[[], None] = lambda: None) -> Member:
        """Another one who paints here, until nothing holds it any longer.

        Args:
            together: whether its pictures may share a pass with others'.
            alive: called about once a second while it waits for its turn; must be quick.
        """
        member = Member(self, together=together, alive=alive)
        self._members.add(member)
        self.most_members = max(self.most_members, self.members)
        return member

    @property
    def members(self) -> int:
        """How many paint here."""
        return len(self._members)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        with self._changed:
            return len(self._waiting)

    def paint(self, jobs: Sequence[Job], *, together: bool, alive: Callable[[], None]) -> int:
        """Paints jobs of one size, in a pass with others' if any wait then; see `Member.paint`.

        Returns:
            How many pictures the pass held.

        Raises:
            Exception: What the engine raised for these jobs by themselves.
        """
        request = _Request(tuple(jobs), _kind(jobs[0]) if together else None)
        if self._is_next(request, alive):
            with self._turn(request) as company:
                self._run(company)
        if request.error is not None:
            raise request.error
        return request.pictures

    @contextmanager
    def alone(self, *, alive: Callable[[], None]) -> Iterator[None]:
        """The engine for other work, in the same order as everybody's pictures."""
        request = _Request((), None)
        self._is_next(request, alive)  # and not done: nobody else can do it
        with self._turn(request):
            yield
            request.done = True

    def _is_next(self, request: _Request, alive: Callable[[], None]) -> bool:
        """Waits until it is a request's turn, or it was painted in another's pass: then false."""
        with self._changed:
            self._waiting.append(request)
            try:
                while not request.done and (self._busy or self._waiting[0] is not request):
                    if not self._changed.wait(LOOK_ROUND):
                        alive()
            except BaseException:
                self._withdraw(request)
                raise
            if not request.done:
                self._busy = True
            return not request.done

    def _withdraw(self, request: _Request) -> None:
        """Lets nobody wait for, or write to, what is given up."""
        if request in self._waiting:
            self._waiting.remove(request)
            self._changed.notify_all()
        else:
            self._changed.wait_for(lambda: request.done or request in self._waiting)
            if request in self._waiting:
                self._withdraw(request)

    @contextmanager
    def _turn(self, request: _Request) -> Iterator[list[_Request]]:
        """A request's turn; gives it, and all that share its pass."""
        company: list[_Request] = []
        try:
            self._settle()
            with self._changed:
                company = self._company(request)
            try:
                yield company
            finally:
                if self._fence is not None:
                    self._unfinished = self._fence()
        finally:
            with self._changed:
                if request in self._waiting:
                    self._waiting.remove(request)
                # If this thread was torn out of the pass, others paint for those who wait for it.
                self._waiting[:0] = [one for one in company if not one.done and one is not request]
                self._busy = False
                self._changed.notify_all()

    def _settle(self) -> None:
        """Waits for the end of the last pass on the device, where that is of use."""
        unfinished, self._unfinished = self._unfinished, None
        me = threading.get_ident()
        # One that is alone gives its device the next picture meanwhile. Another thread gives it on
        # another stream, whose work could overtake.
        if unfinished is not None and (self.members > 1 or self._last != me):
            unfinished()
        self._last = me

    def _company(self, first: _Request) -> list[_Request]:
        """Takes a request and those of its kind from the queue, oldest first, as many as fit."""
        found, pictures = [first], len(first.jobs)
        if first.kind is not None:
            most = self._fitting.get(first.kind, self._most)
            for one in self._waiting:
                if one is first or one.kind != first.kind:
                    continue
                if pictures + len(one.jobs) > most:
                    break
                found.append(one)
                pictures += len(one.jobs)
        self._waiting = [one for one in self._waiting if one not in found]
        return found

    def _run(self, company: Sequence[_Request]) -> None:
        jobs = [job for one in company for job in one.jobs]
        error = self._failure(jobs)
        if error is None or len(company) == 1:
            if error is None:
                self.counts[len(jobs)] += 1
            for one in company:
                one.error, one.pictures, one.done = error, len(jobs), True
            return
        if isinstance(error, MemoryError):
            self._take_fewer(company[0].kind, len(jobs))
        # Who is to blame is found out alone. What the error holds makes room for that first.
        del error
        for one in company:
            self._run([one])

    def _failure(self, jobs: Sequence[Job]) -> Exception | None:
        try:
            self.engine.paint_jobs(jobs)
        except Exception as error:
            return error
        return None

    def _take_fewer(self, kind: Kind | None, pictures: int) -> None:
        if kind is None:
            return
        height, width, _ = kind
        self._fitting[kind] = fewer = pictures // 2
        _log.warning(
            "there is no memory for %d pictures of %dx%d at once: %s from now on",
            *(pictures, width, height),
            "each is painted alone" if fewer == 1 else f"at most {fewer} are painted together",
        )

    def __repr__(self) -> str:
        return f"<Passes for {self.members}, {self.counts.total()} so far>"


class Member:
    """One video's way to an engine that others use, too; for one thread at a time.

    Made by `Passes.join`.

    Attributes:
        counts: how many of its pictures were painted in passes of each number of pictures.
    """

    def __init__(self, passes: Passes, *, together: bool, alive: Callable[[], None]) -> None:
        self.passes = passes
        self.counts: Counter[int] = Counter()
        self._together = together
        self._alive = alive

    def paint(self, jobs: Sequence[Job]) -> None:
        """Paints jobs of one size when it is their turn; returns when they are painted.

        Raises:
            Exception: What the engine raises for these jobs. Others' have no part in it.
        """
        held = self.passes.paint(jobs, together=self._together, alive=self._alive)
        self.counts[held] += len(jobs)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The engine for other work than jobs, when it is its turn; nobody paints meanwhile."""
        with self.passes.alone(alive=self._alive):
            yield

    def __repr__(self) -> str:
        return f"<Member of {self.passes!r}>"


def summary(engine: OneStep) -> str | None:
    """How many pictures an engine has painted in company, as a sentence; None if it has no mates.

    Args:
        engine: with turns of a `Member`, or with none.
    """
    member = engine.turns
    if not isinstance(member, Member) or member.passes.most_members < 2 or not member.counts:
        return None
    counts = member.counts
    parts = [
        f"{counts[size]:,} by themselves" if size == 1 else f"{counts[size]:,} in passes of {size}"
        for size in sorted(counts)
    ]
    return f"{counts.total():,} pictures by a model that other nodes used, too: {', '.join(parts)}"


def _kind(job: Job) -> Kind:
    height, width = job.image.shape[:2]
    return height, width, isinstance(job.image, np.ndarray)
