"""What drivers answer, as structures of linux/videodev2.h; no camera is at hand where tests run."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from nodes.decoder import DecoderParams, commands, v4l2
from nodes.decoder.address import parse_address
from nodes.decoder.faults import Fault, Reason
from nodes.decoder.input import camera_options, open_input

CAPTURE, STREAMING, META, DEVICE_CAPS = 0x1, 0x04000000, 0x00800000, 0x80000000


def capability(card, bits):
    """struct v4l2_capability of a UVC camera: the physical device can do more than this file."""
    every = CAPTURE | META | STREAMING | DEVICE_CAPS
    return struct.pack(
        "<16s32s32sIII3I", b"uvcvideo", card, b"usb-0000:00:14.0-1", 0x060108, every, bits, 0, 0, 0
    )


def described(index, code, words, flags):
    return struct.pack("<III32s4sI3I", index, 1, flags, words, code, 0, 0, 0, 0)


def sized(index, code, *, discrete=None, stepwise=None):
    kind, numbers = (1, (*discrete, 0, 0, 0, 0)) if discrete else (3, stepwise)
    return struct.pack("<I4sI6I2I", index, code, kind, *numbers, 0, 0)


def timed(index, code, width, height, *, discrete=None, continuous=None):
    kind, numbers = (1, (*discrete, 0, 0, 0, 0)) if discrete else (2, continuous)
    return struct.pack("<I4sIII6I2I", index, code, width, height, kind, *numbers, 0, 0)


class Driver:
    """Answers requests as the kernel does: by a structure, or by EINVAL past the last one."""

    def __init__(self, card, bits):
        self.card, self.bits = card, bits
        self.formats = [(b"MJPG", b"Motion-JPEG", 1), (b"YUYV", b"YUYV 4:2:2", 0)]
        self.sizes = {
            b"MJPG": [{"discrete": (1280, 720)}, {"discrete": (640, 480)}],
            b"YUYV": [{"stepwise": (160, 1920, 16, 120, 1080, 8)}],
        }
        self.intervals = {
            (b"MJPG", 1280, 720): [{"discrete": (1, 30)}, {"discrete": (1, 60)}],
            (b"MJPG", 640, 480): [{"discrete": (1001, 30000)}],
            (b"YUYV", 1920, 1080): [{"continuous": (1, 30, 1, 5, 1, 1)}],
        }

    def __call__(self, request, structure):
        if request == 0x80685600:
            return capability(self.card, self.bits)
        index = struct.unpack_from("<I", structure)[0]
        if request == 0xC0405602:
            answers = [described(n, *one) for n, one in enumerate(self.formats)]
        elif request == 0xC02C564A:
            code = structure[4:8]
            answers = [sized(n, code, **one) for n, one in enumerate(self.sizes[code])]
        elif request == 0xC034564B:
            code, width, height = struct.unpack_from("<4sII", structure, 4)
            every = self.intervals[code, width, height]
            answers = [timed(n, code, width, height, **one) for n, one in enumerate(every)]
        else:
            raise AssertionError(hex(request))
        if index >= len(answers):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        assert len(answers[index]) == len(structure) == request >> 16 & 0x3FFF
        return answers[index]


@pytest.fixture
def machine(tmp_path):
    """Folders as sysfs and /dev have them, for cameras that are given by their drivers."""
    names, folder = tmp_path / "class", tmp_path / "dev"
    (folder / "v4l" / "by-id").mkdir(parents=True)
    names.mkdir()
    drivers = {}

    def add(number, driver, *, stable=None):
        path = folder / f"video{number}"
        path.touch()
        (names / path.name).mkdir()
        (names / path.name / "name").write_text(driver.card.decode() + "\n")
        drivers[path] = driver
        if stable:
            (folder / "v4l" / "by-id" / stable).symlink_to(path)
        return path

    add.where = {"names": names, "folder": folder, "ask": lambda path: drivers[path]}
    return add


def test_cameras_are_listed_with_what_they_send(machine):
    camera = machine(10, Driver(b"Logitech BRIO", CAPTURE | STREAMING), stable="usb-BRIO-index0")
    data = machine(2, Driver(b"Logitech BRIO", META | STREAMING))
    first, second = v4l2.devices(**machine.where)
    assert (first.path, first.captures, first.formats) == (data, False, ())
    assert (second.path, second.name, second.captures) == (camera, "Logitech BRIO", True)
    assert second.id == machine.where["folder"] / "v4l/by-id/usb-BRIO-index0"
    jpeg, raw = second.formats
    assert (jpeg.input_format, jpeg.compressed, jpeg.description) == ("mjpeg", True, "Motion-JPEG")
    assert jpeg.sizes == (
        v4l2.Size(1280, 720, None, (Fraction(60), Fraction(30))),
        v4l2.Size(640, 480, None, (Fraction(30000, 1001),)),
    )
    assert raw.input_format == "yuyv422"
    assert raw.sizes == (v4l2.Size(1920, 1080, (160, 120), (Fraction(30), Fraction(5))),)
    assert commands.lines(second)[2:] == [
        "  mjpeg     1280x720     60, 30 fps",
        "            640x480      29.97 fps",
        "  yuyv422   160x120 to 1920x1080 30, 5 fps",
    ]
    assert commands.lines(first) == [
        f"{data}  Logitech BRIO",
        "  no camera: nothing can be read from it",
    ]


def test_a_camera_is_found_by_a_part_of_its_name(machine):
    machine(0, Driver(b"Integrated Webcam", CAPTURE | STREAMING))
    machine(1, Driver(b"Integrated Webcam", META | STREAMING))
    brio = machine(2, Driver(b"Logitech BRIO", CAPTURE | STREAMING))
    assert v4l2.find("logitech", **machine.where) == brio
    with pytest.raises(LookupError, match="no camera has 'Sony' in its name; here are Integrated"):
        v4l2.find("Sony", **machine.where)
    machine(3, Driver(b"Logitech C920", CAPTURE | STREAMING))
    with pytest.raises(v4l2.SeveralError, match=r"2 cameras have 'Logitech' in their name; name "):
        v4l2.find("Logitech", **machine.where)


def test_devices_that_cannot_be_asked_say_why(machine):
    path = machine(0, Driver(b"Toy Camera", CAPTURE))
    where = {**machine.where, "ask": None}  # asks the file itself, which is no device
    (device,) = v4l2.devices(**where)
    assert device.problem == "Inappropriate ioctl for device"
    assert commands.lines(device)[-1] == "  cannot be opened: Inappropriate ioctl for device"
    assert v4l2.find("toy", **where) == path


def test_a_driver_whose_list_never_ends_is_cut_off(machine):
    driver = Driver(b"Endless", CAPTURE)
    driver.formats = [(b"GREY", b"8-bit Greyscale", 0)] * 1000
    driver.sizes = {b"GREY": []}
    machine(0, driver)
    (device,) = v4l2.devices(**machine.where)
    assert len(device.formats) == 256


@pytest.mark.skipif(any(Path("/dev").glob("video*")), reason="this machine has a camera")
def test_a_machine_without_cameras_is_told_plainly(capsys):
    commands.devices()
    assert capsys.readouterr().out.startswith("no video devices: this machine has no camera")
    commands.devices(as_json=True)
    assert json.loads(capsys.readouterr().out) == []
    params = DecoderParams(url="camera:Logitech", size="1280x720", input_format="mjpeg")
    with pytest.raises(Fault, match=r"here are|no cameras") as caught:
        open_input(parse_address(params.url), params, live=True, audio=False)
    assert caught.value.reason is Reason.NOT_FOUND
    assert caught.value.retry


def test_a_camera_is_asked_for_what_was_chosen():
    params = DecoderParams(url="/dev/video0", size="1280x720", input_format="mjpeg", fps=29.97)
    assert camera_options(params) == {
        "video_size": "1280x720",
        "input_format": "mjpeg",
        "framerate": "30000/1001",
    }
    assert camera_options(DecoderParams(url="/dev/video0")) == {}


def test_the_command_is_installed():
    done = subprocess.run(
        [Path(sys.executable).parent / "streamer", "devices", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "List cameras" in done.stdout
