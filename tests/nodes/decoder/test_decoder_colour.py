from __future__ import annotations

import av
import numpy as np
import pytest

MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
AVCOL = {"bt601": 6, "bt709": 1, "bt2020": 9}
SAMPLES = [(120, 90, 200), (60, 128, 128), (180, 60, 110), (90, 170, 100), (16, 128, 128)]


def rgb_of(sample, space, full):
    """Red, green and blue of one YUV sample, by the definition (ITU-T H.273, 8.3)."""
    red_share, blue_share = MATRICES[space]
    y, u, v = sample[0], sample[1] - 128, sample[2] - 128
    if not full:
        y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    red = y + 2 * (1 - red_share) * v
    blue = y + 2 * (1 - blue_share) * u
    green = (y - red_share * red - blue_share * blue) / (1 - red_share - blue_share)
    return np.clip([red, green, blue], 0, 255)


def patches(path, space, full, *, size=(64, 48), tagged=True):
    """A lossless clip, one flat picture for each sample."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        if tagged:
            video.codec_context.colorspace = AVCOL[space]
            video.codec_context.color_range = 2 if full else 1
        for number, sample in enumerate(SAMPLES):
            frame = av.VideoFrame(*size, "yuv420p")
            for plane, value in zip(frame.planes, sample, strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            if tagged:
                frame.colorspace, frame.color_range = AVCOL[space], 2 if full else 1
            frame.pts = number
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


@pytest.mark.parametrize("space", list(MATRICES))
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("format", ["rgb24", "bgr24"])
def test_colours_follow_the_matrix_and_the_range(play, tmp_path, space, full, format):
    played = play(patches(tmp_path / "patches.mkv", space, full), wanted=(format,))
    for sample, picture in zip(SAMPLES, played.pictures, strict=True):
        expected = rgb_of(sample, space, full)
        expected = expected[::-1] if format == "bgr24" else expected
        assert np.abs(picture - expected).max() <= 2.5
    assert {(header.colorspace, header.full_range) for header in played.headers} == {("rgb", True)}


@pytest.mark.parametrize("space", list(MATRICES))
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("format", ["yuv420p", "nv12"])
def test_yuv_is_handed_on_untouched_and_labelled(play, tmp_path, space, full, format):
    played = play(patches(tmp_path / "patches.mkv", space, full), wanted=(format,))
    for sample, picture in zip(SAMPLES, played.pictures, strict=True):
        assert set(picture[:48].flat) == {sample[0]}
        assert set(picture[48:].flat) == set(sample[1:])
    assert {(header.colorspace, header.full_range) for header in played.headers} == {(space, full)}


@pytest.mark.parametrize("full", [False, True])
def test_gray_is_luminance_of_full_range(play, tmp_path, full):
    played = play(patches(tmp_path / "patches.mkv", "bt709", full), wanted=("gray",))
    for sample, picture in zip(SAMPLES, played.pictures, strict=True):
        expected = sample[0] if full else (sample[0] - 16) * 255 / 219
        assert np.abs(picture - expected).max() <= 1


@pytest.mark.parametrize(("size", "space"), [((64, 718), "bt601"), ((64, 720), "bt709")])
def test_what_is_not_said_is_guessed_by_height(play, tmp_path, size, space):
    path = patches(tmp_path / "silent.mkv", space, False, size=size, tagged=False)
    assert play(path).headers[0].colorspace == space
    shown = play(path, wanted=("rgb24",)).pictures[0]
    assert np.abs(shown - rgb_of(SAMPLES[0], space, False)).max() <= 2.5
