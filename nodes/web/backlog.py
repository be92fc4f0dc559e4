"""What waits for one viewer: little, and when it grows old, a fresh start at the next keyframe."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

LONGEST: Final = 0.5
"""seconds that a viewer may be behind before it skips to the next keyframe"""

MOST: Final = 16 << 20
"""bytes that may wait for one viewer"""


class Piece(Protocol):
    """A part of a stream."""

    @property
    def entry(self) -> bool:
        """Whether a viewer can begin with it."""
        ...

    @property
    def made(self) -> float:
        """`time.monotonic()` when it was made."""
        ...

    def __len__(self) -> int:
        """Bytes of it."""
        ...


P = TypeVar("P", bound=Piece)


class Backlog(Generic[P]):
    """Pieces of a stream for one viewer, in order, from a keyframe on.

    Used in the server's loop alone. A viewer who takes too little loses what waits for it and goes
    on at the next keyframe.

    Args:
        behind: called when the viewer has fallen behind or waits for a first keyframe.
        skipped: called for each piece that the viewer does not get because it was too slow.
    """

    def __init__(
        self, *, behind: Callable[[], None], skipped: Callable[[], None] = lambda: None
    ) -> None:
        self._pieces: deque[P] = deque()
        self._bytes = 0
        self._entered = False
        self._late = False
        self._closed = False
        self._behind = behind
        self._skipped = skipped
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pieces)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def put(self, piece: P) -> None:
        """Adds a piece, unless the viewer waits for a keyframe."""
        if self._closed:
            return
        if self._pieces and (
            piece.made - self._pieces[0].made > LONGEST or self._bytes + len(piece) > MOST
        ):
            self.restart()
        if not self._entered:
            if not piece.entry:
                if self._late:
                    self._skipped()
                self._behind()
                return
            self._entered, self._late = True, False
        self._pieces.append(piece)
        self._bytes += len(piece)
        self._ready.set()

    def restart(self) -> None:
        """Drops what waits; the next piece to go out is one that a viewer can begin with."""
        for _ in self._pieces:
            self._skipped()
        self._late = self._late or self._entered
        self._pieces.clear()
        self._bytes = 0
        self._entered = False
        self._ready.clear()

    async def get(self) -> list[P]:
        """All that waits, once there is something; empty when it was closed."""
        while not self._pieces and not self._closed:
            self._ready.clear()
            await self._ready.wait()
        found = list(self._pieces)
        self._pieces.clear()
        self._bytes = 0
        return found

    def close(self) -> None:
        """Ends it: what waits is dropped, and `get` returns at once."""
        self._closed = True
        self._pieces.clear()
        self._bytes = 0
        self._ready.set()


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A picture that stands for itself.

    Attributes:
        data: a JPEG file.
        made: `time.monotonic()`.
    """

    data: bytes
    made: float
    entry: bool = True

    def __len__(self) -> int:
        return len(self.data)


class Newest:
    """One picture for one viewer; a newer one takes its place.

    Args:
        skipped: called for each picture that the viewer was too slow for.
    """

    def __init__(self, *, skipped: Callable[[], None] = lambda: None) -> None:
        self._picture: Jpeg | None = None
        self._skipped = skipped
        self._closed = False
        self._ready = asyncio.Event()

    def put(self, picture: Jpeg) -> None:
        """Takes the place of the picture that waits, if any."""
        if self._closed:
            return
        if self._picture is not None:
            self._skipped()
        self._picture = picture
        self._ready.set()

    async def get(self) -> list[Jpeg]:
        """The picture, once there is one; empty when it was closed."""
        while self._picture is None and not self._closed:
            self._ready.clear()
            await self._ready.wait()
        picture, self._picture = self._picture, None
        return [picture] if picture is not None else []

    def close(self) -> None:
        """Ends it: `get` returns at once."""
        self._closed = True
        self._picture = None
        self._ready.set()
