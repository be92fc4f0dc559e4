from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest

from nodes.decoder.address import find_pictures, parse_address
from streamer import SourceError


def levels(played):
    return [int(picture.reshape(-1)[0]) for picture in played.pictures]


def test_a_numbered_sequence(pictures, play):
    folder = pictures([7, 8, 9, 10])
    played = play(folder / "%04d.png", wanted=("rgb24",))
    assert levels(played) == [7, 8, 9, 10]
    assert played.times == pytest.approx([0, 0.04, 0.08, 0.12])
    assert played.context.expected == {"frames": 4, "seconds": pytest.approx(0.16)}


def test_a_sequence_at_a_rate_of_its_own(pictures, play):
    played = play(pictures([1, 2, 3]) / "%04d.png", wanted=("rgb24",), fps=10)
    assert levels(played) == [1, 2, 3]
    assert played.times == pytest.approx([0, 0.1, 0.2])


def test_pictures_by_a_pattern_may_have_gaps(pictures, play):
    assert levels(play(pictures([3, 9, 40]) / "*.png", wanted=("rgb24",))) == [3, 9, 40]


def test_a_gap_in_a_numbered_sequence_is_told(pictures, play):
    folder = pictures([1, 2, 5])
    with pytest.raises(SourceError, match="number 3 is missing between 2 and 5"):
        play(folder / "%04d.png")


def test_no_picture_of_the_pattern(tmp_path, play):
    with pytest.raises(SourceError, match="no file has a name of this pattern"):
        play(tmp_path / "*.png")
    with pytest.raises(SourceError, match="no file has a name of this pattern"):
        play(tmp_path / "nowhere" / "%d.png")


def test_counters_with_and_without_zeros(tmp_path):
    for name in ("a1.png", "a10.png", "a02.png", "a2.png", "b1.png", "a1.jpg"):
        (tmp_path / name).touch()
    assert [number for number, _ in find_pictures(str(tmp_path / "a%d.png"))] == [1, 2, 10]
    assert [number for number, _ in find_pictures(str(tmp_path / "a%02d.png"))] == [2, 10]


def test_a_sequence_loops(pictures, play):
    played = play(pictures([1, 2, 3]) / "%04d.png", wanted=("rgb24",), loop=True, most=7)
    assert levels(played) == [1, 2, 3, 1, 2, 3, 1]
    assert played.times == pytest.approx([number / 25 for number in range(7)])


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_a_still_picture_is_shown_once(tmp_path, play, suffix):
    path = tmp_path / f"still.{suffix}"
    cv2.imwrite(str(path), np.full((30, 40, 3), (10, 120, 240), np.uint8))
    played = play(path, wanted=("rgb24",))
    assert len(played.headers) == 1
    assert played.times == [0]
    assert np.abs(played.pictures[0].astype(int) - (240, 120, 10)).max() < 4


def test_a_still_picture_repeats_at_a_rate(tmp_path, play):
    path = tmp_path / "still.png"
    cv2.imwrite(str(path), np.full((30, 40, 3), 77, np.uint8))
    played = play(path, wanted=("rgb24",), loop=True, fps=30, most=5)
    assert [header.time_base * header.pts for header in played.headers] == [
        Fraction(number, 30) for number in range(5)
    ]
    assert levels(played) == [77] * 5


def test_a_name_with_signs_of_a_pattern_is_a_file_if_it_is_there(clip, play):
    path = clip("50%d[x].mp4", count=2)
    assert parse_address(str(path)).kind == "file"
    assert len(play(path).headers) == 2


@pytest.mark.parametrize(
    ("url", "kind", "scheme"),
    [
        ("a.mp4", "file", ""),
        ("file:///tmp/a.mp4", "file", ""),
        ("frames/%05d.jpg", "pictures", ""),
        ("frames/*.jpg", "pictures", ""),
        ("/dev/video0", "device", ""),
        ("rtsp://camera/stream?x=%20d", "network", "rtsp"),
        ("https://host/a.mp4", "network", "https"),
        ("demo:", "file", ""),
    ],
)
def test_addresses_are_told_apart(url, kind, scheme):
    address = parse_address(url)
    assert (address.kind, address.scheme) == (kind, scheme)


def test_credentials_are_not_shown():
    assert "hunter2" not in parse_address("rtsp://admin:hunter2@camera/live").shown
