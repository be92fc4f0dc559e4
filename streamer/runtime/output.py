"""Frames that a node makes: writable, in a slot of its outlet until they are published."""

from __future__ import annotations

from streamer.frame import Frame, Header, Lease
from streamer.link.outlet import Outlet, Slot


class CancelledRun(BaseException):
    """Ends a node's code that waits for a slot when the run is stopped at once."""


class OutputFrame(Frame):
    """A frame for writing; it is published by being returned or yielded, or else released."""

    __slots__ = ("_outlet", "_slot")

    def __init__(self, header: Header, outlet: Outlet, slot: Slot) -> None:
        self._outlet = outlet
        self._slot: Slot | None = slot
        super().__init__(header, Lease(slot.pixels, self._discard))

    def publish(self, *, check_views: bool) -> bool:
        """Offers the picture to the consumers and ends the node's lease.

        Args:
            check_views: refuse if an array of the pixels is still kept. A generator's local
                variables live on while it waits, so frames of sources are not checked.

        Returns:
            Whether it had a slot; False if it was in scratch memory and is dropped.

        Raises:
            LeaseError: a view is kept, or the frame was published or released before.
        """
        lease = self._open()
        slot = self._slot
        assert slot is not None
        if check_views:
            # The slot stays ours if this raises: it must not be read half-written.
            self._slot = None
            self.release()
        self._slot, self._lease = None, None
        del lease
        return self._outlet.publish(slot, self.header)

    def _discard(self) -> None:
        if self._slot is not None:
            slot, self._slot = self._slot, None
            self._outlet.discard(slot)
