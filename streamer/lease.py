"""The right to use a slot of frame memory, and the proof that nobody reads it afterwards."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from streamer.errors import LeaseError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Lease:
    """The right to use one slot, shared by the frames that hold it.

    Args:
        pixels: bytes of the slot.
        give_back: called once, when the last holder has let go. It may be called in any thread.
        keep: called once, when a holder lets go and leaves another; likewise.
    """

    __slots__ = ("_give_back", "_holders", "_keep", "_lock", "_pixels", "_root")

    def __init__(
        self,
        pixels: memoryview,
        give_back: Callable[[], None] | None = None,
        *,
        keep: Callable[[], None] | None = None,
    ) -> None:
        self._pixels: memoryview | None = pixels
        self._give_back = give_back
        self._keep = keep
        self._holders = 1
        self._lock = threading.RLock()  # garbage may be collected, and abandoned, while it is held
        # All views of the pixels keep this one array alive, so its death is theirs.
        self._root: weakref.ref[npt.NDArray[np.uint8]] | None = None

    def bytes(self) -> npt.NDArray[np.uint8]:
        """All bytes of the slot as a flat uint8 array, without copying."""
        import numpy as np

        with self._lock:
            root = self._root() if self._root is not None else None
            if self._pixels is None:
                raise LeaseError("a frame that was given back can no longer be read")
            if root is None:
                root = np.frombuffer(self._pixels, dtype=np.uint8)
                self._root = weakref.ref(root)
            return root

    def hold(self) -> None:
        """Adds a holder."""
        with self._lock:
            if not self._holders:
                raise LeaseError("a frame that was given back cannot be held again")
            self._holders += 1

    @property
    def shared(self) -> bool:
        """Whether more than one frame holds it."""
        return self._holders > 1

    def release(self) -> None:
        """Removes a holder; the last one gives the slot back.

        Raises:
            LeaseError: the last holder leaves while an array or tensor still shows the pixels.
        """
        if self._shown():
            gc.collect()  # the views may be garbage already, in a cycle that an exception left
        with self._lock:
            if self._shown():
                raise LeaseError(
                    "a view of a frame's pixels is still in use after the frame was given back; "
                    "keep a copy (frame.numpy().copy()) or the frame itself (frame.hold())"
                )
            then = self._leave()
        if then is not None:
            then()

    def abandon(self) -> None:
        """Removes a holder that was forgotten; the slot goes back when no view shows it any more.

        Safe where garbage is collected, in any thread.
        """
        with self._lock:
            last = self._holders == 1
            root = self._root() if self._root is not None else None
            then = self._leave()
        if then is None:
            return
        if last and root is not None:
            weakref.finalize(root, then).atexit = False
        else:
            then()

    def _shown(self) -> bool:
        return self._holders == 1 and self._root is not None and self._root() is not None

    def _leave(self) -> Callable[[], None] | None:
        """Removes a holder; what is to be called then, without the lock."""
        self._holders -= 1
        if self._holders:
            then, self._keep = self._keep, None
            return then
        self._pixels = self._keep = None
        then, self._give_back = self._give_back, None
        return then
