"""Frames and leases: who may read a picture, how long, and what happens to those who forget."""

from __future__ import annotations

import gc
import threading
import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from streamer.errors import LeaseError
from streamer.formats import FORMATS, picture_shape
from streamer.frame import Frame
from streamer.header import Header, new_header
from streamer.lease import Lease


def frame_with_log(**changes: Any) -> tuple[Frame, list[str]]:
    """A gray frame of 4x2 pixels, and what its lease was told."""
    log: list[str] = []
    header = Header(
        stream="cam",
        seq=3,
        pts=90,
        time_base=Fraction(1, 30),
        width=4,
        height=2,
        format="gray",
        capture_ns=time.monotonic_ns(),
        wall_ns=time.time_ns(),
        **changes,
    )
    lease = Lease(
        memoryview(bytearray(range(64))),
        lambda: log.append("back"),
        keep=lambda: log.append("kept"),
    )
    return Frame(header, lease), log


def test_leaving_a_frame_gives_its_slot_back_once() -> None:
    frame, log = frame_with_log()
    with frame as entered:
        assert entered is frame
        assert frame.numpy().tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert log == []
    assert log == ["back"]
    assert frame.released
    frame.release()
    assert log == ["back"]


def test_use_after_release_is_an_error_that_names_the_frame() -> None:
    frame, _ = frame_with_log()
    frame.release()
    for use in (frame.numpy, frame.torch, frame.hold):
        with pytest.raises(
            LeaseError, match=r"<Frame cam#3 4x2 gray t=3\.000s released> was given"
        ):
            use()
    assert frame.seq == 3  # the header may still be read


def test_a_view_kept_past_the_lease_is_an_error() -> None:
    frame, log = frame_with_log()
    view = frame.numpy()
    for kept in (view, view[0], view.T, view.reshape(-1)[2:4], memoryview(view)):
        del view
        with pytest.raises(LeaseError, match="a view of a frame's pixels is still in use"):
            frame.release()
        assert log == []
        assert not frame.released
        view = frame.numpy()
        del kept
    del view
    frame.release()
    assert log == ["back"]


def test_a_copy_may_be_kept() -> None:
    frame, log = frame_with_log()
    with frame:
        copy = frame.numpy().copy()
    assert log == ["back"]
    assert copy[1, 3] == 7


def test_views_that_are_garbage_already_are_no_views() -> None:
    frame, log = frame_with_log()
    gc.disable()
    try:
        cycle: list[Any] = [frame.numpy()]
        cycle.append(cycle)
        del cycle
        frame.release()
    finally:
        gc.enable()
    assert log == ["back"]


def test_an_error_on_its_way_is_not_hidden_by_the_views_it_keeps() -> None:
    frame, _ = frame_with_log()

    def work() -> None:
        pixels = frame.numpy()
        raise KeyError(int(pixels[0, 0]))

    with pytest.raises(KeyError), frame:
        work()


def test_hold_keeps_a_picture_beyond_the_call() -> None:
    frame, log = frame_with_log()
    with frame:
        held = frame.hold()
        view = held.numpy()
    assert frame.released
    assert log == ["kept"]  # room for another picture, but not this slot
    assert view[0, 1] == 1
    with pytest.raises(LeaseError, match="still in use"):
        held.release()
    del view
    held.release()
    assert log == ["kept", "back"]


def test_the_last_of_many_holders_gives_back() -> None:
    frame, log = frame_with_log()
    frames = [frame, *(frame.hold() for _ in range(50))]
    threads = [threading.Thread(target=one.release) for one in frames]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.count("back") == 1
    assert log[-1] == "back"


def test_a_forgotten_frame_gives_its_slot_back() -> None:
    frame, log = frame_with_log()
    held = frame.hold()
    del frame
    assert log == ["kept"]
    del held
    assert log == ["kept", "back"]


def test_a_forgotten_frame_gives_its_slot_back_when_its_last_view_dies() -> None:
    frame, log = frame_with_log()
    view = frame.numpy()[1:]
    del frame
    gc.collect()
    assert log == []
    assert view[0, 0] == 4
    del view
    assert log == ["back"]


def test_numpy_shows_the_memory_itself() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    with Frame.of(pixels) as frame:
        frame.numpy()[1, 2] = 9
        assert frame.numpy().flags.writeable
    assert pixels[1, 2].tolist() == [9, 9, 9]


def test_a_lease_on_read_only_memory_gives_read_only_views() -> None:
    frame, _ = frame_with_log()
    header = frame.header
    with Frame(header, Lease(memoryview(bytes(64)))) as received:
        assert not received.numpy().flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            received.numpy()[0, 0] = 1


def test_torch_shows_the_memory_itself_and_is_a_view_like_any_other() -> None:
    torch = pytest.importorskip("torch")
    frame, log = frame_with_log()
    tensor = frame.torch()
    assert tensor.dtype == torch.uint8
    assert tensor.shape == (2, 4)
    frame.numpy()[0, 0] = 77
    assert int(tensor[0, 0]) == 77
    with pytest.raises(LeaseError, match="still in use"):
        frame.release()
    del tensor
    frame.release()
    assert log == ["back"]


def test_a_read_only_tensor_comes_without_a_warning() -> None:
    pytest.importorskip("torch")
    frame, _ = frame_with_log()
    with Frame(frame.header, Lease(memoryview(bytes(64)))) as received:
        assert int(received.torch()[0, 3]) == 0  # warnings are errors here


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_a_frame_of_an_array_of_each_format(pixel_format: str) -> None:
    shape = picture_shape(pixel_format, 64, 48)
    with Frame.of(
        np.arange(np.prod(shape)).astype("uint8").reshape(shape), format=pixel_format
    ) as f:
        assert (f.width, f.height, f.format) == (64, 48, pixel_format)
        assert f.numpy().shape == shape
        assert f.numpy().reshape(-1)[:5].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("array", "pixel_format", "said"),
    [
        (np.zeros((4, 4, 3)), "rgb24", "float64"),
        (np.zeros((4, 4, 3), np.int8), "rgb24", "int8"),
        (np.zeros((4, 4), np.uint8), "rgb24", r"shape \(4, 4\) is no rgb24 picture"),
        (np.zeros((4, 4, 4), np.uint8), "rgb24", "is no rgb24 picture"),
        (np.zeros((4, 4, 1), np.uint8), "gray", "is no gray picture"),
        (np.zeros(48, np.uint8), "gray", "1 to 16384 pixels a side"),
        (np.zeros((), np.uint8), "gray", "1 to 16384 pixels a side"),
        (np.zeros((0, 4), np.uint8), "gray", "1 to 16384 pixels a side"),
        (np.zeros((7, 4), np.uint8), "yuv420p", "is no yuv420p picture"),
        (np.zeros((6, 5), np.uint8), "nv12", "needs even sides"),
        (np.zeros((4, 4, 3), np.uint8), "rgb48", "unknown pixel format 'rgb48'; known: rgb24"),
        (np.zeros((4, 8, 3), np.uint8)[:, ::2], "rgb24", "not contiguous; pass numpy.ascontig"),
    ],
)
def test_a_frame_of_what_is_no_picture_is_refused(array: Any, pixel_format: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Frame.of(array, format=pixel_format)


def test_times_of_a_header() -> None:
    frame, _ = frame_with_log()
    header = frame.header
    assert header.time == 3.0
    assert header.age_ns(header.capture_ns + 5_000_000) == 5_000_000
    assert 0 <= header.age_ns() < 60 * 10**9


def new(**changes: Any) -> Header:
    given: dict[str, Any] = {
        "like": None, "pts": None, "time_base": None, "capture_ns": None, **changes,
    }  # fmt: skip
    return new_header("node", 5, 8, 6, given.pop("format", "rgb24"), **given)


def test_a_header_like_another_passes_on_what_belongs_to_the_stream() -> None:
    like = frame_with_log(duration=2, generation=4)[0].header
    header = new(like=like)
    assert (header.stream, header.seq, header.pts, header.duration) == ("cam", 3, 90, 2)
    assert (header.capture_ns, header.wall_ns) == (like.capture_ns, like.wall_ns)
    assert (header.width, header.height, header.format) == (8, 6, "rgb24")
    header.trace.append(None)  # type: ignore[arg-type]
    assert like.trace == []  # each has its own


def test_the_colour_space_passes_on_only_among_formats_of_its_kind() -> None:
    yuv = frame_with_log()[0].header
    yuv.format, yuv.colorspace, yuv.full_range = "nv12", "bt709", False
    same, other = new(like=yuv, format="yuv420p"), new(like=yuv, format="rgb24")
    assert (same.colorspace, same.full_range) == ("bt709", False)
    assert (other.colorspace, other.full_range) == ("rgb", True)


def test_a_header_of_a_source_takes_its_times() -> None:
    header = new(pts=7, time_base=Fraction(1, 25), capture_ns=time.monotonic_ns() - 10**9)
    assert (header.stream, header.seq, header.pts) == ("node", 5, 7)
    assert abs(time.time_ns() - 10**9 - header.wall_ns) < 60 * 10**9
    for incomplete in ({}, {"pts": 1}, {"time_base": Fraction(1, 25)}):
        with pytest.raises(TypeError, match="allocate needs like=, or pts= and time_base="):
            new(**incomplete)


def test_a_frame_reads_well_in_a_log() -> None:
    frame, _ = frame_with_log()
    assert repr(frame) == "<Frame cam#3 4x2 gray t=3.000s>"
    frame.release()
    assert repr(frame) == "<Frame cam#3 4x2 gray t=3.000s released>"
