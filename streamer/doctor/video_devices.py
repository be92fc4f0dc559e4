"""Cameras and virtual cameras: /dev/videoN, what they are called and what they can do."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from streamer.doctor.finding import Finding, Status

_AREA: Final = "See"
_CLASS: Final = Path("/sys/class/video4linux")
_DEVICES: Final = Path("/dev")
# From linux/videodev2.h: struct v4l2_capability and the ioctl that fills it.
_CAPABILITY: Final = struct.Struct("16s32s32sIII12x")
_QUERYCAP: Final = 0x80685600
_CAPTURE, _OUTPUT, _DEVICE_CAPS = 0x1, 0x2, 0x80000000
_CAMERA_ADVICE: Final = "plug in a camera, or give the decoder a file or an rtsp:// address"
_OUTPUT_ADVICE: Final = (
    "for a virtual camera: apt install v4l2loopback-dkms, then modprobe v4l2loopback"
)


def look(*, names: Path = _CLASS, devices: Path = _DEVICES) -> Iterator[Finding]:
    """Every video device; then what is missing.

    Args:
        names: folder that sysfs keeps of video devices.
        devices: folder of device files.
    """
    cameras = outputs = 0
    for entry in _sorted(names):
        path = devices / entry.name
        name = _read(entry / "name")
        try:
            capabilities = _capabilities(path)
        except OSError as error:
            yield Finding(
                area=_AREA,
                name=str(path),
                status=Status.WARN,
                detail=f"{name}: cannot be opened ({error.strerror})",
                advice=_open_advice(error),
            )
            continue
        kinds = []
        if capabilities & _CAPTURE:
            cameras += 1
            kinds.append("camera")
        if capabilities & _OUTPUT:
            outputs += 1
            kinds.append("virtual camera to write to")
        # Many cameras have a second device that gives only data about pictures.
        said = " and ".join(kinds) or "neither camera nor output"
        yield Finding(area=_AREA, name=str(path), status=Status.OK, detail=f"{name}: {said}")
    if not cameras:
        yield Finding(
            area=_AREA,
            name="cameras",
            status=Status.WARN,
            detail="none found",
            advice=_CAMERA_ADVICE,
        )
    if not outputs:
        yield Finding(
            area=_AREA,
            name="virtual cameras",
            status=Status.WARN,
            detail="none found",
            advice=_OUTPUT_ADVICE,
        )


def _sorted(names: Path) -> list[Path]:
    if not names.is_dir():
        return []
    found = [entry for entry in names.iterdir() if entry.name.startswith("video")]
    return sorted(found, key=lambda entry: (len(entry.name), entry.name))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip() or "unnamed"
    except OSError:
        return "unnamed"


def _capabilities(path: Path) -> int:
    """Capability bits of one device; raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(descriptor, _QUERYCAP, bytes(_CAPABILITY.size))
    finally:
        os.close(descriptor)
    *_, all_bits, device_bits = _CAPABILITY.unpack(answer)
    return int(device_bits if all_bits & _DEVICE_CAPS else all_bits)


def _open_advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "add yourself to the group video: sudo usermod -aG video $USER, then log in again"
    if isinstance(error, FileNotFoundError):
        return "pass the device into the container: --device"
    return "another program may be using it; close that program"
