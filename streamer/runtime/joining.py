"""The loop of a node of several inputs: which pictures belong together."""

from __future__ import annotations

import time
from typing import Any

from streamer.drops import Drop
from streamer.errors import FrameError, LeaseError
from streamer.frame import Frame
from streamer.header import Header
from streamer.link.inlet import EndOfStream, Received
from streamer.link.wire import Watermark
from streamer.nodebase import Join
from streamer.runtime.feed import Feed
from streamer.runtime.loops import Loop


def run_join(loop: Loop, node: Join[Any]) -> None:
    """One picture out for each of the leading input's, with the newest not later of the others.

    Of another live source it is simply the newest: each stream's times begin at its own opening
    and run by its own clock, so that comparing them would show one camera late or not at all.

    Where a file is processed the leader waits until each other input has given a later picture,
    the very same one, or a mark that none will come. What the leader will not ask for any more is
    taken from the others meanwhile, so that no branch stands still because of a full one.
    """
    leader, *rest = (key for key, (link, _) in loop.feed.links.items() if link.media == "video")
    others = {key: _Other(loop, key) for key in rest}
    passed: Watermark | None = None
    first = True
    failed = True
    try:
        while not loop.aborted.is_set():
            arrival = loop.feed.receive(leader)
            if arrival is None:
                wanted = [key for key, other in others.items() if other.look(passed)]
                loop.feed.wait(leader, *wanted)
            elif isinstance(arrival, EndOfStream):
                break
            elif isinstance(arrival, Watermark):
                passed = arrival
                loop.pass_on(arrival)
            elif isinstance(arrival, Received):
                if first:
                    loop.running()
                    first = False
                _join(loop, node, arrival, others)
        failed = False
    finally:
        for other in others.values():
            try:
                other.release()
            except LeaseError:
                if not failed:  # else it is a consequence of the error on its way
                    raise


def _join(loop: Loop, node: Join[Any], arrival: Received, others: dict[str, _Other]) -> None:
    context = loop.context
    loop.board.received.add()
    context.withheld = False
    with arrival.frame as leader, loop.handling(leader.header):
        for key, other in others.items():
            while not other.advance(leader.header):
                if loop.aborted.is_set():
                    return
                loop.feed.wait(key)
        started = time.monotonic_ns()
        frames: dict[str, Frame | None] = {context.input_names[0]: leader}
        for name, other in zip(context.input_names[1:], others.values(), strict=True):
            frames[name] = other.current
        if not node.partial and None in frames.values():
            loop.drop(Drop.UNMATCHED, leader.header)
            return
        # What comes of them has the latest change of all branches.
        shown = (one.header.generation for one in frames.values() if one is not None)
        leader.header.generation = max(shown)
        result = None
        try:
            result = node.process(frames)
            loop.publish(result, leader.header, arrival.received_ns, started)
        except FrameError as error:  # also where there is no room for what was returned
            result = None  # it may be a view of a frame
            loop.failed(leader.header, error)
        del result


class _Other:
    """An input of a join that does not lead: the picture shown and the one after it."""

    def __init__(self, loop: Loop, key: str) -> None:
        self._feed: Feed = loop.feed
        self._key = key
        link, _ = self._feed.links[key]
        self._waits = link.queue == "wait" and not loop.context.live
        self._newest = not self._waits and key in loop.context.own_clocks
        self._next: Frame | None = None
        self._passed: Watermark | None = None
        self._ended = False
        self.current: Frame | None = None

    def look(self, passed: Watermark | None) -> bool:
        """Takes what has come in, while the leader has nothing new.

        Args:
            passed: mark up to which the leader will ask for nothing.

        Returns:
            Whether it could use more.
        """
        self._take()
        while self._next is not None and (
            self._newest or (passed is not None and passed.covers(self._next.header))
        ):
            self._show_next()
            self._take()
        return self._next is None and not self._ended

    def advance(self, leader: Header) -> bool:
        """Goes on to the newest picture that is not later than the leader's, or to the newest.

        Returns:
            Whether it is known to be that, or shall not be waited for.
        """
        self._take()
        while self._next is not None and (self._newest or not _later(self._next.header, leader)):
            self._show_next()
            self._take()
        same = self.current is not None and (
            self.current.header.stream == leader.stream and self.current.header.seq == leader.seq
        )
        known = same or self._next is not None or self._ended
        if self._passed is not None and self._passed.covers(leader):
            known = True
        return known or not self._waits

    def release(self) -> None:
        """Gives back what is held."""
        for frame in (self.current, self._next):
            if frame is not None:
                frame.release()
        self.current = self._next = None

    def _take(self) -> None:
        while self._next is None and not self._ended:
            arrival = self._feed.receive(self._key)
            if isinstance(arrival, Received):
                self._next = arrival.frame
            elif isinstance(arrival, Watermark):
                self._passed = arrival
            elif isinstance(arrival, EndOfStream):
                self._ended = True
            else:
                return

    def _show_next(self) -> None:
        if self.current is not None:
            self.current.release()
        self.current, self._next = self._next, None


def _later(header: Header, leader: Header) -> bool:
    if header.stream == leader.stream:
        return header.seq > leader.seq
    return header.pts * header.time_base > leader.pts * leader.time_base
