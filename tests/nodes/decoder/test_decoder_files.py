from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from nodes.decoder.render import turn_of_matrix
from nodes.planes import lay


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


def as_rgb(picture, header):
    """Reference conversion of a BT.601 picture of limited range, by OpenCV."""
    code = {"yuv420p": cv2.COLOR_YUV2RGB_I420, "nv12": cv2.COLOR_YUV2RGB_NV12}
    return cv2.cvtColor(picture, code[header.format]) if header.format in code else picture


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("clip.mp4", {}),
        ("clip.mkv", {"codec": "libvpx-vp9"}),
        ("clip.avi", {"codec": "mpeg4"}),
        ("clip.ts", {"codec": "mpeg2video"}),
    ],
)
def test_every_picture_comes_in_order_with_its_time(clip, play, name, options):
    played = play(clip(name, **options))
    assert len(played.headers) == 12
    assert played.times == pytest.approx([number / 25 for number in range(12)], abs=0.0011)
    assert [header.seq for header in played.headers] == list(range(12))
    assert {header.stream for header in played.headers} == {"source"}
    assert played.context.expected["frames"] == 12
    assert played.dropped == {}


def test_pictures_look_like_what_was_encoded(clip, play, texture):
    played = play(clip("clip.mp4", options={"qp": "4"}))
    for number in (0, 5, 11):
        shown = as_rgb(played.pictures[number], played.headers[number])
        assert psnr(shown, texture(160, 120, number)) > 34


def test_times_are_passed_through_where_the_rate_varies(clip, play):
    times = [0, 10, 55, 60, 200, 201, 340]
    played = play(clip("vfr.mkv", count=7, times=times))
    assert [header.pts for header in played.headers] == times
    assert {header.time_base for header in played.headers} == {Fraction(1, 1000)}


def test_times_count_from_the_start_of_the_container(clip, play):
    path = clip("late.ts", codec="mpeg2video", container={"output_ts_offset": "5000"})
    with av.open(str(path)) as container:
        assert container.start_time > 4_000_000_000
    assert play(path).times[0] == 0


def test_reordered_pictures_keep_time_and_capture(clip, play):
    played = play(clip("b.mp4", options={"bf": "3", "b_strategy": "0"}, count=20))
    assert played.times == pytest.approx([number / 25 for number in range(20)])
    assert len({header.capture_ns for header in played.headers}) == 20
    assert {header.duration * header.time_base for header in played.headers} == {Fraction(1, 25)}


@pytest.mark.parametrize(
    ("wanted", "pix_fmt", "size", "expected"),
    [
        (("yuv420p", "rgb24"), "yuv420p", (160, 120), "yuv420p"),
        (("rgb24", "yuv420p"), "yuv420p", (160, 120), "yuv420p"),
        (("rgb24",), "yuv420p", (160, 120), "rgb24"),
        (("nv12", "rgb24"), "yuv420p", (160, 120), "nv12"),
        (("yuv420p", "rgb24"), "yuv420p10le", (160, 120), "yuv420p"),
        (("yuv420p", "rgb24"), "yuv444p", (160, 120), "yuv420p"),
        (("yuv420p", "rgb24"), "yuv444p", (161, 121), "rgb24"),
        (("gray",), "yuv420p", (160, 120), "gray"),
    ],
)
def test_the_cheapest_wanted_format_is_handed_on(clip, play, wanted, pix_fmt, size, expected):
    played = play(clip("clip.mkv", pix_fmt=pix_fmt, size=size, count=2), wanted=wanted)
    header = played.headers[0]
    assert (header.width, header.height, header.format) == (*size, expected)


def test_rgb_stays_rgb(clip, play, texture):
    played = play(clip("clip.mkv", codec="ffv1", pix_fmt="bgr0", count=1))
    assert played.headers[0].format == "rgb24"
    assert np.array_equal(played.pictures[0], texture(160, 120, 0))


def test_ten_bits_become_eight(clip, play):
    ten = play(clip("ten.mkv", codec="ffv1", pix_fmt="yuv420p10le", count=1)).pictures[0]
    eight = play(clip("eight.mkv", codec="ffv1", pix_fmt="yuv420p", count=1)).pictures[0]
    assert np.abs(ten.astype(int) - eight).max() <= 1


def test_a_format_that_nobody_takes_is_refused(clip, play):
    from streamer import ParameterError

    with pytest.raises(
        ParameterError, match="nv12 is not taken by the next nodes; they take rgb24"
    ):
        play(clip("clip.mp4", count=1), wanted=("rgb24",), format="nv12")


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("format", ["yuv420p", "nv12", "rgb24"])
def test_rotation_is_honoured(clip, play, degrees, flip, format):
    def prepare(video):
        video.set_display_rotation(degrees, hflip=flip)

    quarters = np.zeros((64, 96, 3), dtype=np.uint8)
    quarters[:32, :48], quarters[:32, 48:] = 230, 160
    quarters[32:, :48], quarters[32:, 48:] = 90, 20
    path = clip(
        "turned.mp4", size=(96, 64), count=1, prepare=prepare, picture=lambda number: quarters
    )
    with av.open(str(path)) as container:
        side = next(container.decode(video=0)).side_data.get("DISPLAYMATRIX")
        matrix = np.frombuffer(bytes(side), dtype=np.int32) if side else None
    played = play(path, wanted=(format,))
    shown, header = as_rgb(played.pictures[0], played.headers[0]), played.headers[0]
    turned = degrees in (90, 270)
    assert (header.width, header.height) == ((64, 96) if turned else (96, 64))
    # Where the matrix itself sends the middle of each quarter, measured from the whole's middle.
    a, b, c, d = (65536, 0, 0, 65536) if matrix is None else matrix[[0, 1, 3, 4]]
    for x, y, value in ((-24, -16, 230), (24, -16, 160), (-24, 16, 90), (24, 16, 20)):
        to_x = round((a * x + c * y) / 65536) + header.width // 2
        to_y = round((b * x + d * y) / 65536) + header.height // 2
        assert abs(int(shown[to_y, to_x, 1]) - value) < 8


def test_a_crooked_matrix_is_rounded_and_says_so():
    angle = np.deg2rad(80)
    cosine, sine = (int(65536 * value) for value in (np.cos(angle), np.sin(angle)))
    matrix = np.array([cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 30], dtype=np.int32)
    turn, exact = turn_of_matrix(matrix)
    assert not exact
    corner = np.arange(6, dtype=np.uint8).reshape(2, 3)
    turned = np.empty((3, 2), dtype=np.uint8)
    lay(corner, turned, turn)
    assert np.array_equal(turned, np.rot90(corner, -1))


def test_pixels_become_square(clip, play):
    def prepare(video):
        video.codec_context.sample_aspect_ratio = Fraction(64, 45)

    played = play(clip("dvd.mkv", size=(180, 144), count=2, prepare=prepare))
    assert {(header.width, header.height) for header in played.headers} == {(256, 144)}


def test_interlaced_pictures_are_woven(clip, play):
    """A bar that moves between the two fields of a frame leaves no comb."""

    def combed(number):
        picture = np.full((120, 160, 3), 40, dtype=np.uint8)
        for field in range(2):
            left = 8 * (2 * number + field) % 128
            picture[field::2, left : left + 24] = 220
        return picture

    path = clip(
        "fields.ts",
        codec="mpeg2video",
        options={"flags": "+ildct+ilme", "qscale": "2"},
        picture=combed,
    )
    played = play(path, wanted=("gray",))
    assert len(played.headers) == 12
    assert played.times == pytest.approx([number / 25 for number in range(12)], abs=1e-4)
    assert {header.duration * header.time_base for header in played.headers} == {Fraction(1, 25)}

    def comb(gray):
        lines = gray.astype(int)
        return np.abs(2 * lines[1:-1] - lines[:-2] - lines[2:]).mean()

    assert comb(combed(4)[..., 0]) > 20
    assert max(comb(picture) for picture in played.pictures[2:-1]) < 5


def test_the_size_may_change_in_mid_stream(clip, play, tmp_path):
    joined = tmp_path / "joined.h264"
    parts = [clip("one.h264", count=4), clip("two.h264", size=(96, 64), count=4)]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    played = play(joined)
    sizes = [(header.width, header.height) for header in played.headers]
    assert sizes == [(160, 120)] * 4 + [(96, 64)] * 4
    assert all(
        later > sooner for sooner, later in zip(played.times, played.times[1:], strict=False)
    )


def test_loop_goes_on_in_time(clip, play):
    played = play(clip("clip.mp4", count=5), loop=True, most=13)
    assert played.times == pytest.approx([number / 25 for number in range(13)])
    assert played.context.expected == {}
    assert np.array_equal(played.pictures[0], played.pictures[5])


def test_the_demo_clip_plays_with_sound(play):
    played = play("demo:", wants_audio=True)
    assert len(played.headers) == 134
    assert (played.headers[0].width, played.headers[0].height) == (512, 288)
    assert played.order.startswith("a")
    assert sum(bool(packet.data) for packet in played.packets) > 200


def test_a_name_with_a_colon_is_a_file_of_this_folder(clip, play, tmp_path, monkeypatch):
    # FFmpeg would take what stands before the colon for a protocol.
    clip("Talk: one.mp4")
    monkeypatch.chdir(tmp_path)
    for url in ("Talk: one.mp4", "file:Talk: one.mp4"):
        assert len(play(url).headers) == 12


def test_the_shape_of_pixels_may_change_in_mid_stream(clip, play, tmp_path):
    # As where a channel goes from a film in 4:3 to one in 16:9.
    def shaped(ratio):
        def prepare(video):
            video.codec_context.sample_aspect_ratio = ratio

        return prepare

    joined = tmp_path / "joined.ts"
    shapes = (Fraction(1), Fraction(4, 3))  # of 160x120
    parts = [
        clip(f"{n}.ts", codec="mpeg2video", prepare=shaped(shape)) for n, shape in enumerate(shapes)
    ]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    widths = [header.width for header in play(joined).headers]
    assert widths == sorted(widths)
    assert set(widths) == {160, 214}
