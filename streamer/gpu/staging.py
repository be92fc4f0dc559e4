"""Pinned host memory for copies to and from a GPU: a few buffers in turn, each until it has passed.

A copy from pinned memory is made later, when the stream comes to it, so a buffer must not be
written again before. The event of its last use tells; it is waited for only if all the others are
still under way as well.
"""

from __future__ import annotations

import logging
import mmap
import sys
from typing import TYPE_CHECKING, Final

from streamer.errors import DeviceError
from streamer.gpu.device import Copy, Device

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_BUFFERS: Final = 3
"""one that is filled, one that is copied, and one to spare"""
_log = logging.getLogger("streamer.gpu")


class Buffer:
    """Pinned memory and the event of its last use.

    Args:
        device: that copies to or from it.
        nbytes: its size.

    Attributes:
        nbytes: its size.
    """

    def __init__(self, device: Device, nbytes: int) -> None:
        import numpy as np

        self.nbytes = nbytes
        self._device = device
        self._open = False
        self._event = device.event_create()
        self._map = np.frombuffer(mmap.mmap(-1, nbytes), dtype=np.uint8)
        self._at: int = self._map.__array_interface__["data"][0]
        self._pinned = True
        try:
            device.host_register(self._at, nbytes)
        except DeviceError as error:
            _log.info("copies between host and GPU take a detour: %s", error)
            self._pinned = False
        self._open = True

    def array(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Its first bytes, to write before `upload` or to read after `download`."""
        return self._map[:nbytes]

    def upload(self, pointer: int, nbytes: int, stream: int) -> None:
        """Puts a copy of the first bytes to device memory into a stream."""
        self._device.memcpy_async(pointer, self._at, nbytes, Copy.TO_DEVICE, stream)
        self._device.event_record(self._event, stream)

    def download(self, pointer: int, nbytes: int, stream: int) -> None:
        """Puts a copy of device memory to the first bytes into a stream; `wait` for it."""
        self._device.memcpy_async(self._at, pointer, nbytes, Copy.TO_HOST, stream)
        self._device.event_record(self._event, stream)

    @property
    def passed(self) -> bool:
        """Whether the last copy is done."""
        return self._device.event_query(self._event)

    def wait(self) -> None:
        """Sleeps until the last copy is done."""
        self._device.event_synchronize(self._event)

    def close(self) -> None:
        """Waits for the last copy and unpins the memory, which goes with the last view of it."""
        if not self._open:
            return
        self._open = False
        self.wait()
        if self._pinned:
            self._device.host_unregister(self._at)
        self._device.event_destroy(self._event)

    def __del__(self) -> None:
        # Memory must not go while it is pinned.
        if not sys.is_finalizing():
            self.close()


class Staging:
    """Buffers in turn, as large as they are asked to be; for one thread.

    Args:
        device: that copies to and from them.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._buffers: list[Buffer] = []

    def take(self, nbytes: int) -> Buffer:
        """A buffer whose last copy is done, the one used longest ago.

        Args:
            nbytes: that it holds at least.
        """
        if self._buffers and self._buffers[0].nbytes < nbytes:
            self.close()
        if len(self._buffers) < _BUFFERS and not (self._buffers and self._buffers[0].passed):
            self._buffers.insert(0, Buffer(self._device, nbytes))
        taken = self._buffers.pop(0)
        taken.wait()
        self._buffers.append(taken)
        return taken

    def close(self) -> None:
        """Waits for what is under way and unpins all memory."""
        buffers, self._buffers = self._buffers, []
        for buffer in buffers:
            buffer.close()
