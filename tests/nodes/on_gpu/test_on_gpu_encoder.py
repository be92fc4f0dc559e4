"""The encoder with a GPU: the same files, for the fewest bytes down."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from on_gpu_stage import OnGpu, frame_on, made_of, waves

from nodes.colour import Colour
from nodes.encoder import Encoder
from streamer import Count
from streamer.gpu.device import Copy
from streamer.testing import SoloContext, solo

COLOUR = Colour("bt709", False)
COUNT = 6


def encoded(path, context, format, *, size=(96, 64), device=None, **params):
    """A file of pictures that move, from frames on the host or on a GPU."""
    encoder = solo(Encoder, context=context, url=str(path), **params)
    for number in range(COUNT):
        rgb = np.ascontiguousarray(np.roll(waves(*size), 5 * number, axis=1))
        frame = made_of(rgb, format, COLOUR)
        frame.header.pts, frame.header.time_base = number, Fraction(1, 25)
        frame.header.duration, frame.header.seq = 1, number
        if device is not None:
            frame = frame_on(device, frame, filled=True)
        with frame:
            encoder.process(frame)
    encoder.finish()
    encoder.close()
    return path


def shown(path):
    """Planes of all pictures as the file has them, and the tags of the first."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    first = frames[0]
    tags = (first.format.name, first.width, first.height, first.colorspace, first.color_range)
    return [frame.to_ndarray().astype(int) for frame in frames], tags


def assert_alike(tmp_path, device, format, name, *, levels, **given):
    on_cpu = encoded(tmp_path / f"cpu-{name}", SoloContext(), format, **given)
    on_gpu = encoded(tmp_path / f"gpu-{name}", OnGpu(device), format, device=device, **given)
    (pictures, tags), (expected, expected_tags) = shown(on_gpu), shown(on_cpu)
    assert tags == expected_tags
    assert len(pictures) == len(expected) == COUNT
    assert max(np.abs(a - b).max() for a, b in zip(pictures, expected, strict=True)) <= levels


LOSSLESS = {"codec": "libx264", "options": {"qp": 0, "crf": -1}}


@pytest.mark.parametrize("format", ["rgb24", "bgr24", "gray", "rgba", "yuv420p", "nv12"])
def test_planes_come_down_as_they_are_encoded(tmp_path, device, format):
    before = device.copied[Copy.TO_HOST]
    # Chroma of moving edges is averaged a little otherwise by swscale.
    levels = 0 if format in ("yuv420p", "nv12") else 6
    assert_alike(tmp_path, device, format, "film.mkv", levels=levels, **LOSSLESS)
    assert device.copied[Copy.TO_HOST] - before == COUNT * 96 * 64 * 3 // 2


def test_odd_pictures_repeat_their_edge(tmp_path, device):
    before = device.copied[Copy.TO_HOST]
    given = {"size": (95, 63)} | LOSSLESS
    assert_alike(tmp_path, device, "rgb24", "film.mkv", levels=6, **given)
    assert device.copied[Copy.TO_HOST] - before == COUNT * 96 * 64 * 3 // 2


@pytest.mark.parametrize(
    ("name", "format", "given", "pixel"),
    [
        ("film.mkv", "yuv420p", {"codec": "mjpeg"}, 1.5),  # of another range and matrix
        ("film.mkv", "rgb24", {"codec": "ffv1"}, 1.5),
        ("%04d.png", "rgb24", {}, 3),
    ],
)
def test_what_kernels_do_not_make_comes_down_as_it_is(tmp_path, device, name, format, given, pixel):
    before = device.copied[Copy.TO_HOST]
    for kind, context in (("on-cpu", SoloContext()), ("on-gpu", OnGpu(device))):
        (tmp_path / kind).mkdir()
        on = device if kind == "on-gpu" else None
        encoded(tmp_path / kind / name, context, format, device=on, **given)
    assert device.copied[Copy.TO_HOST] - before == COUNT * 96 * 64 * pixel
    for path in sorted((tmp_path / "on-cpu").iterdir()):
        (pictures, tags), (expected, expected_tags) = (
            shown(tmp_path / "on-gpu" / path.name),
            shown(path),
        )
        assert tags == expected_tags
        assert len(pictures) == len(expected)
        assert max(np.abs(a - b).max() for a, b in zip(pictures, expected, strict=True)) <= 6


def test_encoders_that_go_on_reading_get_memory_of_their_own(tmp_path, device):
    """ffv1 is handed copies: pinned memory is written again by the next picture."""
    path = encoded(
        tmp_path / "film.mkv", OnGpu(device), "yuv420p", device=device,
        codec="ffv1", options={"threads": 4},
    )  # fmt: skip
    like = encoded(tmp_path / "like.mkv", SoloContext(), "yuv420p", codec="ffv1")
    for picture, expected in zip(shown(path)[0], shown(like)[0], strict=True):
        assert (picture == expected).all()


def test_without_an_encoder_of_its_own_x264_takes_over(tmp_path, simulated_gpu, caplog):
    from streamer import gpu

    caplog.set_level("INFO", "streamer.node.node")
    context = OnGpu(gpu.device(0))
    encoded(tmp_path / "film.mp4", context, "rgb24", device=gpu.device(0))
    assert any(line.endswith("is encoded by libx264") for line in caplog.messages)
    assert context.counts[Count.HARDWARE] == 0


def nvenc(device) -> bool:
    from nodes.encoder.codecs import choose
    from nodes.encoder.outputs import parse
    from nodes.encoder.params import EncoderParams
    from streamer import ParameterError

    try:
        params = EncoderParams(url="x.mp4", codec="h264_nvenc")
        setup = choose(parse("x.mp4"), params, gpu=device.ordinal, surfaces=True)
    except ParameterError:
        return False
    return setup.surfaces == device.ordinal


@pytest.mark.gpu
@pytest.mark.parametrize("format", ["rgb24", "yuv420p", "nv12"])
def test_the_gpus_encoder_reads_its_memory(tmp_path, real_gpu, format):
    if not nvenc(real_gpu):
        pytest.skip("needs a GPU that encodes")
    before = real_gpu.copied[Copy.TO_HOST]
    context = OnGpu(real_gpu)
    size = (320, 240)
    path = encoded(
        tmp_path / "film.mp4", context, format, device=real_gpu, size=size, codec="h264_nvenc"
    )
    assert real_gpu.copied[Copy.TO_HOST] == before  # nothing comes down
    assert context.counts[Count.HARDWARE] == COUNT
    like = encoded(tmp_path / "like.mp4", SoloContext(), format, size=size, codec="libx264")
    (pictures, tags), (expected, expected_tags) = shown(path), shown(like)
    assert tags[1:] == expected_tags[1:]
    for picture, other in zip(pictures, expected, strict=True):
        assert np.abs(picture - other).mean() <= 3
