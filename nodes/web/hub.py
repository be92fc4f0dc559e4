"""Where the frame loop and the server meet: pieces go one way, wishes of viewers the other.

The frame loop never waits for the server: it leaves pieces in a short list and goes on. All that
viewers do happens in the server's thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from nodes.web.backlog import Jpeg

KEYFRAME_GAP: Final = 0.5
"""seconds between two keyframes that viewers ask for"""

_MOST_POSTED: Final = 256  # pieces that the server has not looked at yet


class Kind(StrEnum):
    """How somebody watches."""

    WEBRTC = "webrtc"
    TS = "ts"
    MJPEG = "mjpeg"


class FullError(Exception):
    """There are as many viewers as there may be."""


@dataclass(frozen=True, slots=True)
class Post:
    """A piece for all viewers of one kind; None ends them."""

    kind: Kind
    piece: Any


@dataclass(eq=False, slots=True)
class Viewer:
    """One who watches, or is about to.

    Attributes:
        kind: how.
        address: where from, for the log.
        backlog: what waits for it; has `put`, `restart` if it needs keyframes, and `close`.
        watching: whether it gets pictures; a WebRTC viewer does once it is connected.
        end: ends it at once.
        since: `time.monotonic()` when it was given what it has not taken yet, or was last seen to
            take some of it; None if it has taken all.
        unsent: how many bytes it has not taken.
        left: as many as there were at the last look.
    """

    kind: Kind
    address: str
    backlog: Any
    watching: bool
    end: Callable[[], None]
    since: float | None = None
    unsent: Callable[[], int] = lambda: 0
    left: int = 0


class Hub:
    """See the module.

    Args:
        limit: of viewers, of all kinds together.
        stall: seconds after which a viewer that takes nothing is ended.
        viewers: told how many watch, when that changes; called in the server's thread.
        skipped: called in the server's thread for each piece that some viewer was too slow for.
    """

    def __init__(
        self,
        *,
        limit: int,
        stall: float,
        viewers: Callable[[int], None] = lambda count: None,
        skipped: Callable[[], None] = lambda: None,
    ) -> None:
        self.limit, self.stall, self.skipped = limit, stall, skipped
        self._tell = viewers
        self._viewers: set[Viewer] = set()
        self._counts: Counter[Kind] = Counter()
        self._posted: deque[Post] = deque()
        self._lock = threading.Lock()
        self._lost = self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._snapshots: list[asyncio.Future[bytes]] = []
        self._keyframe = False
        self._last_keyframe = float("-inf")

    # In the frame loop.

    def watched(self, kind: Kind) -> bool:
        """Whether somebody watches in this way, so that pieces for it are worth making."""
        return self._counts[kind] > 0

    @property
    def wants_jpeg(self) -> bool:
        """Whether the next picture is wanted as a JPEG."""
        return bool(self._snapshots) or self._counts[Kind.MJPEG] > 0

    @property
    def wants_snapshot(self) -> bool:
        """Whether somebody waits for a single picture."""
        return bool(self._snapshots)

    @property
    def wants_keyframe(self) -> bool:
        """Whether a viewer waits for a keyframe and one may be made."""
        return self._keyframe and time.monotonic() - self._last_keyframe >= KEYFRAME_GAP

    def made_keyframe(self) -> None:
        """Says that one has been made: those who waited get it, others must wait a little."""
        self._keyframe = False
        self._last_keyframe = time.monotonic()

    def post(self, kind: Kind, piece: Any) -> None:
        """Leaves a piece for the viewers of a kind; returns at once."""
        with self._lock:
            if len(self._posted) >= _MOST_POSTED:
                # The server has not run for long: what is next would lack what is missing.
                self._posted.clear()
                self._lost = True
            self._posted.append(Post(kind, piece))
            loop = None if self._scheduled else self._loop
            self._scheduled = True
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                pass  # the server has ended meanwhile; who started it sees that

    def dismiss(self, kind: Kind) -> None:
        """Ends all viewers of a kind after what was posted: the stream goes on in another form."""
        self.post(kind, None)

    # In the server's thread.

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Says in which loop viewers are served."""
        with self._lock:
            self._loop = loop
            self._scheduled = False

    def join(
        self,
        kind: Kind,
        address: str,
        backlog: Any,
        *,
        end: Callable[[], None],
        watching: bool = True,
    ) -> Viewer:
        """Lets a viewer in.

        Raises:
            FullError: there are as many as there may be.
        """
        if len(self._viewers) >= self.limit:
            raise FullError(f"there are {self.limit} viewers, as many as max_viewers allows")
        viewer = Viewer(kind, address, backlog, False, end)
        self._viewers.add(viewer)
        if watching:
            self.watch(viewer)
        return viewer

    def watch(self, viewer: Viewer) -> None:
        """Begins to give a viewer what there is to see."""
        if viewer in self._viewers and not viewer.watching:
            viewer.watching = True
            self._count(viewer.kind, 1)
            self.ask_keyframe()

    def leave(self, viewer: Viewer) -> None:
        """Forgets a viewer; does nothing if it has left."""
        if viewer in self._viewers:
            self._viewers.remove(viewer)
            viewer.backlog.close()
            if viewer.watching:
                self._count(viewer.kind, -1)

    def ask_keyframe(self) -> None:
        """Asks for a keyframe, as soon as one may be made."""
        self._keyframe = True

    async def snapshot(self, seconds: float) -> bytes | None:
        """The next picture as a JPEG; None if none comes in time."""
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._snapshots.append(waiting)
        try:
            return await asyncio.wait_for(waiting, seconds)
        except TimeoutError:
            return None
        finally:
            if waiting in self._snapshots:
                self._snapshots.remove(waiting)

    def counts(self) -> dict[str, int]:
        """How many watch, by kind."""
        return {kind.value: self._counts[kind] for kind in Kind}

    def end_stalled(self) -> list[Viewer]:
        """Ends viewers that have taken nothing for too long, and returns them."""
        now = time.monotonic()
        for viewer in self._viewers:
            if viewer.since is not None and (left := viewer.unsent()) != viewer.left:
                viewer.left, viewer.since = left, now  # it takes something, however slowly
        late = [v for v in self._viewers if v.since is not None and now - v.since > self.stall]
        for viewer in late:
            viewer.end()
        return late

    def end_streams(self) -> None:
        """Ends what is sent to all viewers; those who still listen get a proper end."""
        for viewer in list(self._viewers):
            viewer.backlog.close()
        for waiting in self._snapshots:
            waiting.cancel()

    def _count(self, kind: Kind, change: int) -> None:
        self._counts[kind] += change
        self._tell(sum(self._counts.values()))

    def _deliver(self) -> None:
        with self._lock:
            posts, self._posted = self._posted, deque()
            lost, self._lost = self._lost, False
            self._scheduled = False
        watching = [viewer for viewer in self._viewers if viewer.watching]
        if lost:
            for viewer in watching:
                if viewer.kind is not Kind.MJPEG:
                    viewer.backlog.restart()
        for post in posts:
            for viewer in watching:
                if viewer.kind is not post.kind:
                    continue
                if post.piece is None:
                    viewer.backlog.close()
                else:
                    viewer.backlog.put(post.piece)
            if isinstance(post.piece, Jpeg):
                waiting, self._snapshots = self._snapshots, []
                for future in waiting:
                    if not future.done():
                        future.set_result(post.piece.data)
