"""The right to use a slot of frame memory, and the proof that nobody reads it afterwards."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from streamer.errors import LeaseError
from streamer.gpu.device import Copy
from streamer.gpu.pixels import DevicePixels, Root

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from streamer.gpu.device import Device


class Lease:
    """The right to use one slot, shared by the frames that hold it.

    Args:
        pixels: bytes of the slot, in host memory or on a GPU.
        give_back: called once, when the last holder has let go. It may be called in any thread.
        keep: called once, when a holder lets go and leaves another; likewise.
        after: called in place of `give_back` where work of a GPU may still use the slot, with the
            device and its streams; it sees to it that `give_back` is called when they have done.
        device: GPU of the node that has the lease; None where it has none.
        copied: called for each copy of the pixels between host memory and a GPU.

    Attributes:
        device: see above.
    """

    __slots__ = (
        "_after", "_copied", "_give_back", "_holders", "_keep", "_lock", "_pixels", "_root",
        "_uploaded", "device",
    )  # fmt: skip

    def __init__(
        self,
        pixels: memoryview | DevicePixels,
        give_back: Callable[[], None] | None = None,
        *,
        keep: Callable[[], None] | None = None,
        after: Callable[[Device, list[int]], None] | None = None,
        device: Device | None = None,
        copied: Callable[[], None] | None = None,
    ) -> None:
        self._pixels: memoryview | DevicePixels | None = pixels
        self._give_back = give_back
        self._keep = keep
        self._after = after
        self._copied = copied
        self.device = device
        # What `upload` made, and the stream that may still be reading the slot for it.
        self._uploaded: tuple[Any, int] | None = None
        self._holders = 1
        self._lock = threading.RLock()  # garbage may be collected, and abandoned, while it is held
        # All views of the pixels keep this one object alive, so its death is theirs.
        self._root: weakref.ref[Any] | None = None

    @property
    def on_device(self) -> bool:
        """Whether the pixels are in a GPU's memory."""
        return isinstance(self._pixels, DevicePixels)

    def bytes(self) -> npt.NDArray[np.uint8]:
        """All bytes of a slot in host memory as a flat uint8 array, without copying."""
        import numpy as np

        with self._lock:
            root = self._root() if self._root is not None else None
            pixels = self._readable()
            assert isinstance(pixels, memoryview)
            if root is None:
                root = np.frombuffer(pixels, dtype=np.uint8)
                self._root = weakref.ref(root)
            array: npt.NDArray[np.uint8] = root
            return array

    def array(self, shape: tuple[int, ...]) -> Any:
        """A slot on a GPU as an array of CuPy, without copying, for work on this thread's stream.

        Raises:
            FrameError: its writer has not finished in time, or has died before.
        """
        with self._lock:
            root = self._root() if self._root is not None else None
            pixels = self._readable()
            assert isinstance(pixels, DevicePixels)
            pixels.use()
            if root is None:
                root = Root(pixels)
                self._root = weakref.ref(root)
            return pixels.device.array(pixels.pointer, shape, owner=root)

    def tensor(self, array: Any) -> Any:
        """What `array` gave as a tensor of torch, without copying."""
        pixels = self._readable()
        assert isinstance(pixels, DevicePixels)
        return pixels.device.tensor(array)

    def download(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """A copy in host memory of a slot on a GPU; counted.

        Raises:
            FrameError: as `array`.
        """
        import numpy as np

        with self._lock:
            pixels = self._readable()
            assert isinstance(pixels, DevicePixels)
            out = np.empty(shape, np.uint8)
            stream = pixels.use()
            to = out.__array_interface__["data"][0]
            pixels.device.memcpy_async(to, pixels.pointer, out.nbytes, Copy.TO_HOST, stream)
            pixels.device.stream_synchronize(stream)
        out.flags.writeable = False  # what is written to a copy would not reach the frame
        self._count()
        return out

    def upload(self, device: Device, shape: tuple[int, ...]) -> Any:
        """A copy on a GPU of a slot in host memory, made once; counted."""
        with self._lock:
            if self._uploaded is None:
                source = self.bytes()
                array = device.empty(shape)
                to = device.pointer_of(array, shape)
                assert to is not None
                stream = device.stream()
                nbytes = math.prod(shape)
                at = source.__array_interface__["data"][0]
                device.memcpy_async(to, at, nbytes, Copy.TO_DEVICE, stream)
                self._uploaded = array, stream
                self._count()
            return self._uploaded[0]

    def write(self, source: Any, shape: tuple[int, ...]) -> None:
        """Fills a slot on a GPU from an array there, or from a contiguous one in host memory.

        An array in pinned memory is read later, on this thread's stream: it must not change before
        that has passed. Any other of the host may be changed at once.

        Raises:
            ValueError: the array is not contiguous, not uint8, or of another shape.
        """
        import numpy as np

        with self._lock:
            pixels = self._readable()
            assert isinstance(pixels, DevicePixels)
            stream, nbytes = pixels.use(), math.prod(shape)
            at = pixels.device.pointer_of(source, shape)
            kind = Copy.ON_DEVICE
            if at is None:
                array = np.ascontiguousarray(source, dtype=np.uint8)
                if array.shape != shape:
                    raise ValueError(f"an array of shape {array.shape}")
                at, kind = array.__array_interface__["data"][0], Copy.TO_DEVICE
            pixels.device.memcpy_async(pixels.pointer, at, nbytes, kind, stream)

    def _readable(self) -> memoryview | DevicePixels:
        if self._pixels is None:
            raise LeaseError("a frame that was given back can no longer be read")
        return self._pixels

    def _count(self) -> None:
        if self._copied is not None:
            self._copied()

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
        then, self._give_back = self._give_back, None
        if self._after is not None and then is not None and (used := self._used()):
            then = partial(self._after, *used)
        self._pixels = self._keep = self._after = self._uploaded = None
        return then

    def _used(self) -> tuple[Device, list[int]] | None:
        """The streams that may still be at work on the slot."""
        if isinstance(self._pixels, DevicePixels):
            return (self._pixels.device, self._pixels.streams) if self._pixels.streams else None
        if self._uploaded is not None and self.device is not None:
            return self.device, [self._uploaded[1]]
        return None
