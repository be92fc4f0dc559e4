"""Frames that a node makes: writable, in a slot of its outlet until they are published."""

from __future__ import annotations

from streamer.frame import Frame
from streamer.header import Header
from streamer.lease import Lease
from streamer.link.outlet import Outlet, Slot


class CancelledRun(BaseException):
    """Ends a node's code that waits for a slot when the run is stopped at once."""


class OutputFrame(Frame):
    """A frame for writing; it is published by being returned or yielded, or else released.

    A node that keeps a second frame of it (`hold()`) may read it until that one is released: the
    slot is not used again before.
    """

    __slots__ = ("_claim",)

    def __init__(self, header: Header, outlet: Outlet, slot: Slot) -> None:
        # The lease refers to the claim, not to the frame: so a frame that is forgotten dies at
        # once, and does not wait for the collector of cycles with its slot.
        self._claim = _Claim(outlet, slot)
        super().__init__(header, Lease(slot.pixels, self._claim.give_up))

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
        lease, claim = self._open(), self._claim
        slot = claim.slot
        assert slot is not None
        if lease.shared:
            published = claim.outlet.publish(slot, self.header, keep=True)
            self._lease = None
            lease.abandon()
            return published
        # The slot stays ours if this raises: it must not be read half-written.
        claim.slot = None
        if check_views:
            self.release()
        self._lease = None
        return claim.outlet.publish(slot, self.header)


class _Claim:
    """A slot that a node may write to, until it is published or given up."""

    __slots__ = ("outlet", "slot")

    def __init__(self, outlet: Outlet, slot: Slot) -> None:
        self.outlet = outlet
        self.slot: Slot | None = slot

    def give_up(self) -> None:
        slot, self.slot = self.slot, None
        if slot is not None:
            self.outlet.discard(slot)
