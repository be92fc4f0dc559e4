"""Frames: a small header and a leased view of pixels that stay where they are.

A frame is a context manager. While it is open its slot is yours; leaving it gives the slot back,
and touching it afterwards raises `LeaseError`, as does leaving while a view is still kept
somewhere: pixels that the next frame overwrites under a reader are never seen.
"""

from __future__ import annotations

import gc
import math
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from streamer.errors import LeaseError
from streamer.formats import YUV_FORMATS, picture_shape

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Hop(NamedTuple):
    """What one node did with a frame; times are nanoseconds of CLOCK_MONOTONIC of the host."""

    node: str
    received: int
    started: int
    finished: int


@dataclass(slots=True, kw_only=True)
class Header:
    """All that is known of a picture besides its pixels.

    Attributes:
        stream: name of the source node.
        seq: number of the picture in its stream, from 0; gaps are dropped frames.
        pts: presentation time in units of `time_base`; from the source, passed through unchanged.
        time_base: seconds in one unit of `pts`.
        duration: how long the picture is shown, in units of `time_base`; 0 if unknown.
        capture_ns: CLOCK_MONOTONIC at the source, nanoseconds.
        wall_ns: wall-clock time at the source, nanoseconds since 1970.
        width: pixels.
        height: pixels.
        format: one of `streamer.formats.FORMATS`.
        colorspace: `bt601`, `bt709`, `bt2020` or `rgb`; how YUV relates to RGB.
        full_range: whether YUV samples use 0 to 255 rather than 16 to 235.
        generation: number of the parameter set that the picture was made with.
        trace: one `Hop` for each node passed, oldest first.
    """

    stream: str
    seq: int
    pts: int
    time_base: Fraction
    width: int
    height: int
    format: str
    capture_ns: int
    wall_ns: int
    duration: int = 0
    colorspace: str = "rgb"
    full_range: bool = True
    generation: int = 0
    trace: list[Hop] = field(default_factory=list)

    @property
    def time(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    def age_ns(self, now: int | None = None) -> int:
        """Nanoseconds since capture; `now` is CLOCK_MONOTONIC, the present by default."""
        return (time.monotonic_ns() if now is None else now) - self.capture_ns


def new_header(
    stream: str,
    seq: int,
    width: int,
    height: int,
    format: str,
    *,
    like: Header | None,
    pts: int | None,
    time_base: Fraction | None,
    capture_ns: int | None,
) -> Header:
    """Header of a new picture, as `Context.allocate` describes it.

    Raises:
        TypeError: neither `like` nor both of `pts` and `time_base` were given.
    """
    if like is not None:
        same_kind = (format in YUV_FORMATS) == (like.format in YUV_FORMATS)
        return Header(
            stream=like.stream,
            seq=like.seq,
            pts=like.pts,
            time_base=like.time_base,
            duration=like.duration,
            width=width,
            height=height,
            format=format,
            capture_ns=like.capture_ns,
            wall_ns=like.wall_ns,
            colorspace=like.colorspace if same_kind else "rgb",
            full_range=like.full_range if same_kind else True,
            generation=like.generation,
            trace=list(like.trace),
        )
    if pts is None or time_base is None:
        raise TypeError("allocate needs like=, or pts= and time_base=")
    now = time.monotonic_ns()
    capture = now if capture_ns is None else capture_ns
    return Header(
        stream=stream,
        seq=seq,
        pts=pts,
        time_base=time_base,
        width=width,
        height=height,
        format=format,
        capture_ns=capture,
        wall_ns=time.time_ns() - (now - capture),
    )


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
        """The pixels as a uint8 array, without copying; read-only for received frames.

        Shape as `streamer.formats.picture_shape` gives it. The array must not outlive the lease.

        Raises:
            LeaseError: the frame was given back.
        """
        shape = picture_shape(self.header.format, self.header.width, self.header.height)
        return self._open().bytes()[: math.prod(shape)].reshape(shape)

    def torch(self) -> Any:
        """The pixels as a CPU `torch.uint8` tensor, without copying; shape as `numpy()`.

        A received frame's memory is read-only: writing to the tensor ends the process.

        Raises:
            LeaseError: the frame was given back.
        """
        import torch

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")
            return torch.from_numpy(self.numpy())

    def _open(self) -> Lease:
        if self._lease is None:
            raise LeaseError(f"{self!r} was given back; its pixels can no longer be read")
        return self._lease

    def __repr__(self) -> str:
        h = self.header
        state = " released" if self.released else ""
        return f"<Frame {h.stream}#{h.seq} {h.width}x{h.height} {h.format} t={h.time:.3f}s{state}>"


@dataclass(slots=True, kw_only=True)
class AudioFormat:
    """What a decoder of a compressed audio stream must know.

    Attributes:
        codec: FFmpeg's codec name, `aac` or `opus` say.
        sample_rate: hertz.
        layout: FFmpeg's channel layout, `stereo` say.
        extradata: the codec's own header, at most 64 KiB.
        frame_size: samples of one packet, 0 if it varies.
    """

    codec: str
    sample_rate: int
    layout: str
    extradata: bytes = b""
    frame_size: int = 0


@dataclass(slots=True, kw_only=True)
class Packet:
    """One packet of compressed audio, beside the pictures on the same clock.

    Attributes:
        stream: name of the source node.
        pts: presentation time in units of `time_base`.
        time_base: seconds in one unit.
        duration: in units of `time_base`; 0 if unknown.
        data: the packet's bytes, at most 1 MiB.
        audio: the stream's format.
    """

    stream: str
    pts: int
    time_base: Fraction
    duration: int
    data: bytes
    audio: AudioFormat
