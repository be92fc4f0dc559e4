"""Cameras of this machine: what they are called and what they can send, asked of the kernel.

Structures and numbers are those of linux/videodev2.h, on machines of little-endian byte order as
all that the kernel's 64-bit ports of interest are.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

SYSFS: Final = Path("/sys/class/video4linux")
DEVICES: Final = Path("/dev")

QUERYCAP: Final = 0x80685600
ENUM_FMT: Final = 0xC0405602
ENUM_FRAMESIZES: Final = 0xC02C564A
ENUM_FRAMEINTERVALS: Final = 0xC034564B
CAPABILITY: Final = struct.Struct("<16s32s32sIII12x")
FORMAT: Final = struct.Struct("<III32s4sI12x")
SIZE: Final = struct.Struct("<I4sI6I8x")
INTERVAL: Final = struct.Struct("<I4sIII6I8x")

_VIDEO_CAPTURE: Final = 0x1
_VIDEO_CAPTURE_MPLANE: Final = 0x1000
_DEVICE_CAPS: Final = 0x80000000
_TYPE_CAPTURE: Final = 1
_COMPRESSED: Final = 0x1
_DISCRETE: Final = 1
_MOST: Final = 256
"""Answers of one kind that are taken from a driver; one that never ends its list is broken."""

_FFMPEG_NAMES: Final = {
    "MJPG": "mjpeg",
    "JPEG": "mjpeg",
    "H264": "h264",
    "HEVC": "hevc",
    "YUYV": "yuyv422",
    "UYVY": "uyvy422",
    "NV12": "nv12",
    "YU12": "yuv420p",
    "RGB3": "rgb24",
    "BGR3": "bgr24",
    "GREY": "gray",
}

Ask = Callable[[int, bytes], bytes]
"""Sends a request to a device and returns the structure as the driver filled it; raises OSError."""


@dataclass(frozen=True, slots=True)
class Size:
    """A size, or a range of sizes, in which a format can be had.

    Attributes:
        width: pixels; the largest of a range.
        height: pixels; the largest of a range.
        smallest: (width, height) of a range, None for a single size.
        rates: pictures a second, highest first; of a range of rates its ends.
    """

    width: int
    height: int
    smallest: tuple[int, int] | None = None
    rates: tuple[Fraction, ...] = ()


@dataclass(frozen=True, slots=True)
class Format:
    """A pixel format or codec that a camera sends.

    Attributes:
        fourcc: the kernel's name.
        description: the driver's words.
        compressed: whether it is a codec.
        sizes: in the driver's order.
    """

    fourcc: str
    description: str
    compressed: bool
    sizes: tuple[Size, ...] = ()

    @property
    def input_format(self) -> str:
        """What the decoder's parameter `input_format` is to be; empty if FFmpeg has no name."""
        return _FFMPEG_NAMES.get(self.fourcc, "")


@dataclass(frozen=True, slots=True)
class Device:
    """A camera, or another video device.

    Attributes:
        path: /dev/videoN.
        name: the driver's.
        id: path below /dev/v4l/by-id that stays the same when it is plugged in elsewhere, or None.
        captures: whether pictures can be read from it.
        formats: what it sends.
        problem: why it could not be asked; empty if it could.
    """

    path: Path
    name: str
    id: Path | None = None
    captures: bool = False
    formats: tuple[Format, ...] = field(default=())
    problem: str = ""


def devices(
    *, names: Path = SYSFS, folder: Path = DEVICES, ask: Callable[[Path], Ask] | None = None
) -> list[Device]:
    """All video devices in the order of their numbers.

    Args:
        names: folder that sysfs keeps of video devices.
        folder: folder of device files.
        ask: opens a device; returns what sends requests to it.
    """
    found = []
    entries = [entry for entry in names.iterdir()] if names.is_dir() else []
    numbered = [entry for entry in entries if entry.name.startswith("video")]
    for entry in sorted(numbered, key=lambda entry: (len(entry.name), entry.name)):
        path = folder / entry.name
        found.append(_device(path, _read(entry / "name"), folder / "v4l" / "by-id", ask))
    return found


class SeveralError(LookupError):
    """Several cameras match where one is meant."""


def find(
    name: str,
    *,
    names: Path = SYSFS,
    folder: Path = DEVICES,
    ask: Callable[[Path], Ask] | None = None,
) -> Path:
    """The camera whose name contains a text, upper and lower case being the same.

    A camera often has a second device, of the same name, that gives only data about pictures: the
    one that captures is meant. Two cameras of one name are told apart by their path or id.

    Raises:
        LookupError: no camera has such a name, or several have (`SeveralError`).
    """
    here = devices(names=names, folder=folder, ask=ask)
    named = [device for device in here if name.casefold() in device.name.casefold()]
    cameras = [device for device in named if device.captures]
    if len(cameras) > 1:
        said = ", ".join(f"{device.path} ({device.name})" for device in cameras)
        raise SeveralError(
            f"{len(cameras)} cameras have {name!r} in their name; name one by its path: {said}"
        )
    # One that cannot be asked is tried nonetheless: opening it tells why not.
    cameras = cameras or [device for device in named if device.problem]
    if cameras:
        return cameras[0].path
    said = ", ".join(device.name for device in here if device.captures)
    there = f"here are {said}" if said else "this machine has no cameras"
    raise LookupError(f"no camera has {name!r} in its name; {there}")


def capabilities(answer: bytes) -> tuple[str, int]:
    """Name and capability bits of a device, of struct v4l2_capability."""
    _, card, _, _, all_bits, device_bits = CAPABILITY.unpack(answer)
    return _text(card), int(device_bits if all_bits & _DEVICE_CAPS else all_bits)


def parse_format(answer: bytes) -> Format:
    """A format without its sizes, of struct v4l2_fmtdesc."""
    _, _, flags, description, fourcc, _ = FORMAT.unpack(answer)
    return Format(_text(fourcc), _text(description), bool(flags & _COMPRESSED))


def parse_size(answer: bytes) -> Size:
    """A size without its rates, of struct v4l2_frmsizeenum."""
    _, _, kind, *numbers = SIZE.unpack(answer)
    if kind == _DISCRETE:
        return Size(numbers[0], numbers[1])
    least_width, most_width, _, least_height, most_height, _ = numbers
    return Size(most_width, most_height, smallest=(least_width, least_height))


def parse_rates(answer: bytes) -> tuple[tuple[Fraction, ...], bool]:
    """Pictures a second of struct v4l2_frmivalenum, and whether more of them may follow."""
    _, _, _, _, kind, *numbers = INTERVAL.unpack(answer)
    pairs = [(numbers[0], numbers[1])] if kind == _DISCRETE else list(_pairs(numbers[:4]))
    rates = tuple(Fraction(below, above) for above, below in pairs if above and below)
    return rates, kind == _DISCRETE


def _pairs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    yield from zip(numbers[::2], numbers[1::2], strict=True)


def _device(path: Path, name: str, ids: Path, ask: Callable[[Path], Ask] | None) -> Device:
    stable = _stable(path, ids)
    descriptor = -1
    try:
        if ask is None:
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            request = _asking(descriptor)
        else:
            request = ask(path)
        card, bits = capabilities(request(QUERYCAP, bytes(CAPABILITY.size)))
        captures = bool(bits & (_VIDEO_CAPTURE | _VIDEO_CAPTURE_MPLANE))
        formats = tuple(_formats(request)) if captures else ()
        return Device(path, card or name, stable, captures, formats)
    except OSError as error:
        return Device(path, name, stable, problem=error.strerror or str(error))
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _asking(descriptor: int) -> Ask:
    def ask(request: int, structure: bytes) -> bytes:
        return fcntl.ioctl(descriptor, request, structure)

    return ask


def _formats(ask: Ask) -> Iterator[Format]:
    for answer in _listed(ask, ENUM_FMT, lambda n: FORMAT.pack(n, _TYPE_CAPTURE, 0, b"", b"", 0)):
        bare = parse_format(answer)
        code = FORMAT.unpack(answer)[4]
        sizes = tuple(_sizes(ask, code))
        yield Format(bare.fourcc, bare.description, bare.compressed, sizes)


def _sizes(ask: Ask, code: bytes) -> Iterator[Size]:
    zeros = (0,) * 6
    for answer in _listed(ask, ENUM_FRAMESIZES, lambda n: SIZE.pack(n, code, 0, *zeros)):
        size = parse_size(answer)
        rates = sorted(set(_rates(ask, code, size)), reverse=True)
        yield Size(size.width, size.height, size.smallest, tuple(rates))
        if size.smallest is not None:
            return


def _rates(ask: Ask, code: bytes, size: Size) -> Iterator[Fraction]:
    def request(number: int) -> bytes:
        return INTERVAL.pack(number, code, size.width, size.height, 0, *(0,) * 6)

    for answer in _listed(ask, ENUM_FRAMEINTERVALS, request):
        rates, more = parse_rates(answer)
        yield from rates
        if not more:
            return


def _listed(ask: Ask, request: int, structure: Callable[[int], bytes]) -> Iterator[bytes]:
    """A driver's answers for the numbers from 0 on, until it says that there are no more."""
    for number in range(_MOST):
        try:
            yield ask(request, structure(number))
        except OSError as error:
            # ENOTTY: the driver does not list these at all.
            if error.errno in (errno.EINVAL, errno.ENOTTY):
                return
            raise


def _stable(path: Path, ids: Path) -> Path | None:
    if not ids.is_dir():
        return None
    real = path.resolve()
    return next((link for link in sorted(ids.iterdir()) if link.resolve() == real), None)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip() or "unnamed"
    except OSError:
        return "unnamed"


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="replace").strip()
