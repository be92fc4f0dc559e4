"""Frames: a small header and a leased view of pixels that stay where they are.

A frame is a context manager. While it is open its slot is yours; leaving it gives the slot back,
and touching it afterwards raises `LeaseError`, as does leaving while a view is still kept
somewhere: pixels that the next frame overwrites under a reader are never seen.
"""

from __future__ import annotations

import math
import time
import warnings
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self

from streamer.errors import DeviceError, LeaseError
from streamer.formats import YUV_FORMATS, picture_shape
from streamer.header import Header
from streamer.lease import Lease

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Frame:
    """One picture: its header, and its pixels while the lease is open.

    Nodes get frames from the runtime and make them with `Context.allocate`; `Frame.of` makes one
    around an array, for tests and for use without a graph.
    """

    __slots__ = ("_lease", "header")

    def __init__(self, header: Header, lease: Lease) -> None:
        self.header = header
        self._lease: Lease | None = lease

    @classmethod
    def of(
        cls,
        array: npt.NDArray[np.uint8],
        *,
        format: str = "rgb24",
        pts: int = 0,
        time_base: Fraction = Fraction(1, 1000),
        stream: str = "array",
        seq: int = 0,
    ) -> Frame:
        """A frame that shows the pixels of a contiguous uint8 array, without copying.

        Args:
            array: shape as `streamer.formats.picture_shape` gives it for `format`.
            format: one of `streamer.formats.FORMATS`.
            pts: presentation time in units of `time_base`.
            time_base: seconds in one unit of `pts`.
            stream: name of the source.
            seq: number of the picture.

        Raises:
            ValueError: the array is not contiguous, not uint8, or its shape is not one of the
                format's.
        """
        height, width = array.shape[:2] if array.ndim >= 2 else (0, 0)
        if format in YUV_FORMATS:
            height = height * 2 // 3
        if array.dtype != "uint8" or array.shape != picture_shape(format, width, height):
            raise ValueError(
                f"an array of {array.dtype} and shape {array.shape} is no {format} picture"
            )
        if not array.flags.c_contiguous:
            raise ValueError("the array is not contiguous; pass numpy.ascontiguousarray(array)")
        header = Header(
            stream=stream,
            seq=seq,
            pts=pts,
            time_base=time_base,
            width=width,
            height=height,
            format=format,
            capture_ns=time.monotonic_ns(),
            wall_ns=time.time_ns(),
        )
        return cls(header, Lease(memoryview(array.data).cast("B")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.release()
        except LeaseError:
            # An error on its way up keeps the variables of the code that it left, views among
            # them. It is the error to see, not this consequence of it.
            if kind is None:
                raise

    def release(self) -> None:
        """Gives the slot back; further calls do nothing.

        Raises:
            LeaseError: a view of the pixels is still kept somewhere.
        """
        lease = self._lease
        if lease is not None:
            lease.release()
            self._lease = None

    def __del__(self) -> None:
        # A frame that was forgotten, in code that an error left say, must not cost a slot for ever.
        lease = getattr(self, "_lease", None)
        if lease is not None:
            lease.abandon()

    def hold(self) -> Frame:
        """A second frame on the same slot, with a lease of its own, to keep beyond this call.

        A link has few slots: of each input and of the output two pictures can be kept while
        others come; of more than that keep copies.
        """
        lease = self._open()
        lease.hold()
        return Frame(self.header, lease)

    @property
    def released(self) -> bool:
        """Whether the slot was given back."""
        return self._lease is None

    @property
    def pts(self) -> int:
        """Presentation time in units of `time_base`."""
        return self.header.pts

    @property
    def time_base(self) -> Fraction:
        """Seconds in one unit of `pts`."""
        return self.header.time_base

    @property
    def seq(self) -> int:
        """Number of the picture in its stream."""
        return self.header.seq

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.header.width

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.header.height

    @property
    def format(self) -> str:
        """Pixel format, one of `streamer.formats.FORMATS`."""
        return self.header.format

    def numpy(self) -> npt.NDArray[np.uint8]:
        """The pixels as a uint8 array; read-only for received frames.

        Shape as `streamer.formats.picture_shape` gives it. Of a frame in host memory it is made
        without copying, and must not outlive the lease. Of a frame on a GPU it is a read-only
        copy, which waits for the GPU and is counted.

        Raises:
            LeaseError: the frame was given back.
            FrameError: the GPU has not finished the picture in time, or its producer has died.
        """
        lease = self._open()
        if lease.on_device:
            return lease.download(self._shape)
        return lease.bytes()[: math.prod(self._shape)].reshape(self._shape)

    def cupy(self) -> Any:
        """The pixels as a `cupy.ndarray` of uint8 on the node's GPU; shape as `numpy()`.

        Of a frame on the GPU it is made without copying, and must not outlive the lease. It is
        for work on this thread's stream, which is made current for CuPy and torch; another stream
        has to be ordered by hand. Of a frame in host memory it is a copy, which is counted.

        Raises:
            LeaseError: the frame was given back.
            FrameError: the GPU has not finished the picture in time, or its producer has died.
            DeviceError: the frame is in host memory and its node has no GPU.
        """
        lease = self._open()
        if lease.on_device:
            return lease.array(self._shape)
        if lease.device is None:
            raise DeviceError(
                "the frame is in host memory, and its node has no GPU to bring it to: "
                "give the node `gpu: 0` in the graph, or use frame.numpy()"
            )
        return lease.upload(lease.device, self._shape)

    def torch(self) -> Any:
        """The pixels as a `torch.uint8` tensor where they are, without copying; shape as `numpy()`.

        A received frame's host memory is read-only: writing to the tensor ends the process. On a
        GPU it is for work on the same stream as `cupy()`.

        Raises:
            LeaseError: the frame was given back.
            FrameError: the GPU has not finished the picture in time, or its producer has died.
        """
        lease = self._open()
        if lease.on_device:
            array = lease.array(self._shape)
            return lease.tensor(array)
        import torch

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")
            return torch.from_numpy(self.numpy())

    def write(self, pixels: Any) -> None:
        """Fills a frame of `Context.allocate`, wherever it lies.

        Args:
            pixels: a uint8 array of the frame's shape: of numpy, or of CuPy or torch where the
                frame is on a GPU, there without a detour through host memory.

        Raises:
            LeaseError: the frame was given back.
            ValueError: the array is of another shape or type, or not contiguous.
        """
        import numpy as np

        lease = self._open()
        if lease.on_device:
            lease.write(pixels, self._shape)
            return
        array = np.asarray(pixels)
        if array.dtype != np.uint8 or array.shape != self._shape:
            raise ValueError(f"an array of {array.dtype} and shape {array.shape} does not fill it")
        np.copyto(self.numpy(), array)

    @property
    def memory(self) -> str:
        """Where the pixels are: `host`, or `cuda` for the node's GPU."""
        return "cuda" if self._open().on_device else "host"

    @property
    def _shape(self) -> tuple[int, ...]:
        return picture_shape(self.header.format, self.header.width, self.header.height)

    def _open(self) -> Lease:
        if self._lease is None:
            raise LeaseError(f"{self!r} was given back; its pixels can no longer be read")
        return self._lease

    def __repr__(self) -> str:
        h = self.header
        state = " released" if self.released else ""
        return f"<Frame {h.stream}#{h.seq} {h.width}x{h.height} {h.format} t={h.time:.3f}s{state}>"
