"""The decoder with a GPU: the same pictures, lying there, for the fewest bytes up."""

from __future__ import annotations

import http.server
import threading
import time
from contextlib import contextmanager, suppress
from fractions import Fraction

import av
import numpy as np
import pytest
from on_gpu_stage import OnGpu, waves

from nodes.decoder import Decoder
from streamer import Count, ParameterError, SourceError
from streamer.gpu.device import Copy
from streamer.testing import SoloContext, solo

WANTED = ("yuv420p", "nv12", "rgb24", "bgr24", "gray")


def clip(path, *, size=(96, 64), count=5, codec="ffv1", form="yuv420p", prepare=None):
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = *size, form
        if prepare is not None:
            prepare(video)
        for number in range(count):
            rgb = np.roll(waves(*size), number * 5, axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame = frame.reformat(format=form)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def played(path, context, **params):
    """Headers and copies of the pixels of all pictures, and where they lay."""
    decoder = solo(Decoder, context=context, url=str(path), **params)
    seen = []
    for frame in decoder.frames():
        with frame:
            seen.append((frame.header, frame.numpy().copy(), frame.memory))
    decoder.close()
    return seen


def assert_alike(path, device, wanted, *, levels, like=None, **params):
    on_cpu = played(like or path, SoloContext(wanted=wanted), **params)
    on_gpu = played(path, OnGpu(device, wanted=wanted), **params)
    assert len(on_gpu) == len(on_cpu) > 0
    for (header, pixels, memory), (expected_header, expected, _) in zip(
        on_gpu, on_cpu, strict=True
    ):
        assert memory == "cuda"
        for name in ("width", "height", "format", "pts", "colorspace", "full_range", "duration"):
            assert getattr(header, name) == getattr(expected_header, name), name
        assert pixels.shape == expected.shape
        assert np.abs(pixels.astype(int) - expected).max() <= levels
    return on_gpu


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("form", ["yuv420p", "nv12", "yuvj420p"])
def test_planes_go_up_as_they_are_and_become_there_what_is_wanted(tmp_path, device, form, wanted):
    codec = {"yuv420p": "ffv1", "nv12": "rawvideo", "yuvj420p": "mjpeg"}[form]
    path = clip(tmp_path / "clip.nut", codec=codec, form=form)
    native = {"yuvj420p": "yuv420p"}.get(form, form)
    before = device.copied[Copy.TO_DEVICE]
    # Of colours swscale's tables make a few levels more or less; YUV is not touched.
    levels = 4 if wanted in ("rgb24", "bgr24") else 1 if wanted == "gray" else 0
    # Of nv12 swscale interpolates chroma, which of yuv420p it repeats, as the kernels always do.
    like = clip(tmp_path / "like.nut", codec="ffv1") if form == "nv12" and levels == 4 else None
    # A GPU that decodes JPEG itself would leave nothing to go up.
    assert_alike(path, device, (wanted,), levels=levels, like=like, hwaccel="none")
    assert device.copied[Copy.TO_DEVICE] - before == 5 * 96 * 64 * 3 // 2
    seen = played(path, OnGpu(device, wanted=(wanted, native)), hwaccel="none")
    assert {header.format for header, _, _ in seen} == {native}


@pytest.mark.parametrize(
    ("size", "form", "prepare"),
    [
        ((96, 64), "yuv420p10le", None),
        ((96, 64), "yuv444p", None),
        ((96, 64), "gray", None),
        ((96, 64), "yuv420p", lambda video: video.set_display_rotation(90)),
        (
            (96, 64),
            "yuv420p",
            lambda video: setattr(video.codec_context, "sample_aspect_ratio", Fraction(4, 3)),
        ),
    ],
    ids=["10 bits", "4:4:4", "gray", "turned", "wide pixels"],
)
def test_what_kernels_do_not_do_the_cpu_does_before(tmp_path, device, size, form, prepare):
    codec = "libx264" if prepare else "ffv1"
    name = "clip.mp4" if prepare else "clip.mkv"
    path = clip(tmp_path / name, size=size, codec=codec, form=form, prepare=prepare)
    seen = assert_alike(path, device, ("rgb24",), levels=3, hwaccel="none")
    if prepare is not None:
        assert {(header.width, header.height) for header, _, _ in seen} != {(96, 64)}


def test_odd_sides_have_a_last_column_and_row(tmp_path, device):
    path = clip(tmp_path / "clip.mkv", size=(95, 63))
    on_gpu = played(path, OnGpu(device, wanted=("rgb24",)))
    on_cpu = played(path, SoloContext(wanted=("rgb24",)))
    for (header, pixels, memory), (_, expected, _) in zip(on_gpu, on_cpu, strict=True):
        assert (header.width, header.height, memory) == (95, 63, "cuda")
        # Of odd pictures swscale interpolates chroma, which is repeated here.
        away = np.abs(pixels.astype(int) - expected)
        assert away.mean() <= 5
        assert away[-1, -1].max() <= 3


def test_hwaccel_cuda_without_what_it_needs_is_told_in_a_sentence(tmp_path, simulated_gpu):
    from streamer import gpu

    path = str(clip(tmp_path / "clip.mkv"))
    with pytest.raises(ParameterError) as caught:
        solo(Decoder, context=SoloContext(), url=path, hwaccel="cuda")
    assert str(caught.value) == (
        "hwaccel cuda needs a GPU: give the node `gpu: 0` in the graph, or leave hwaccel out"
    )
    with pytest.raises(ParameterError) as caught:
        solo(Decoder, context=OnGpu(gpu.device(0)), url=path, hwaccel="cuda")
    assert str(caught.value) == (
        "hwaccel cuda cannot be had: a simulated GPU has no decoder; hwaccel auto does without"
    )


def test_hwaccel_auto_says_once_why_the_cpu_decodes(tmp_path, simulated_gpu, caplog):
    from streamer import gpu

    path = clip(tmp_path / "clip.mkv")
    caplog.set_level("INFO", "streamer.node.node")
    context = OnGpu(gpu.device(0), wanted=("yuv420p",))
    assert len(played(path, context)) == 5
    assert caplog.messages == ["the CPU decodes: a simulated GPU has no decoder"]
    assert context.counts[Count.HARDWARE] == 0
    caplog.clear()
    assert len(played(path, context, hwaccel="none")) == 5
    assert len(played(path, SoloContext(wanted=("yuv420p",)))) == 5
    assert caplog.messages == []


def test_a_missing_driver_is_a_reason_and_no_traceback(tmp_path, monkeypatch):
    """With FFmpeg's own refusal, on a machine that has no driver."""
    from types import SimpleNamespace

    from streamer import gpu
    from streamer.gpu import nvdec

    device = SimpleNamespace(ordinal=0, memory=lambda: (1, 1))
    monkeypatch.delenv(gpu.SIMULATED, raising=False)
    refusal = nvdec.refusal(device)  # type: ignore[arg-type]
    if not refusal:
        pytest.skip("this machine decodes on its GPU")
    assert refusal.startswith("CUDA does not open for FFmpeg (")


@pytest.fixture
def opening(monkeypatch):
    """FFmpeg opens as if there were a GPU; the CPU decodes."""
    from types import SimpleNamespace

    from streamer import gpu
    from streamer.gpu import nvdec

    monkeypatch.delenv(gpu.SIMULATED, raising=False)
    monkeypatch.setattr(nvdec, "settings", lambda device, required: None)
    monkeypatch.setattr(nvdec, "_DECODER", "libc.so.6")
    return SimpleNamespace(ordinal=0)


def test_a_driver_without_its_decoder_is_a_reason(opening, monkeypatch):
    """As in a container that was not given it: FFmpeg itself opens, and fails with a picture."""
    from streamer.gpu import nvdec

    monkeypatch.setattr(nvdec, "_DECODER", "libnosuchdecoder.so.1")
    assert nvdec.refusal(opening) == (
        "the driver's libnosuchdecoder.so.1 is not here (for a container, "
        "NVIDIA_DRIVER_CAPABILITIES must name video)"
    )


def test_a_decoder_counts_only_once_it_has_decoded_into_the_gpus_memory(opening, monkeypatch):
    from streamer.gpu import nvdec

    assert nvdec.refusal(opening) == "its decoder (NVDEC) does not decode"  # the CPU did
    monkeypatch.setattr(nvdec, "KEYFRAME", nvdec.KEYFRAME[:40])
    assert nvdec.refusal(opening).startswith("its decoder (NVDEC) does not decode")


def test_the_picture_that_is_tried_is_whole():
    from av.codec.context import CodecContext

    from streamer.gpu import nvdec

    (picture,) = nvdec.tried(CodecContext.create("h264", "r"))
    assert (picture.width, picture.height, picture.format.name) == (256, 256, "yuv420p")
    assert not picture.is_corrupt
    assert abs(picture.to_ndarray(format="gray").astype(int) - 128).max() <= 3


@pytest.fixture
def decoding_gpu(real_gpu):
    """A GPU that decodes."""
    from streamer.gpu import nvdec

    if refusal := nvdec.refusal(real_gpu):
        pytest.skip(f"needs a GPU that decodes: {refusal}")
    return real_gpu


@pytest.fixture
def blind_gpu(simulated_gpu, monkeypatch):
    """A GPU's decoder that takes any stream and gives no picture, as without memory for them."""
    from types import SimpleNamespace

    from nodes.decoder import hwaccel
    from nodes.decoder.decoding import Decoding
    from streamer import gpu

    broken = SimpleNamespace(required=False, settings=lambda: None, decoded=lambda *_: None)
    decode = Decoding._decode
    monkeypatch.setattr(hwaccel, "choose", lambda mode, context: broken)
    monkeypatch.setattr(
        Decoding,
        "_decode",
        lambda self, packet: [] if self._acceleration is broken else decode(self, packet),
    )
    return gpu.device(0)


GIVEN_UP = "the GPU's decoder gives no picture of it: the CPU decodes from now on"


def test_a_file_of_which_the_gpu_decodes_nothing_is_left_to_the_cpu(tmp_path, blind_gpu, caplog):
    caplog.set_level("WARNING", "streamer.node.node")
    path = clip(tmp_path / "clip.mkv")
    assert len(played(path, OnGpu(blind_gpu, wanted=("yuv420p",)))) == 5
    assert caplog.messages == [f"{path}: {GIVEN_UP}"]


@contextmanager
def sent_for_ever(path):
    """The address of a server that sends a clip again and again, to anyone, without an end."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            data = path.read_bytes()
            with suppress(OSError):
                while True:
                    for at in range(0, len(data), 4096):
                        self.wfile.write(data[at : at + 4096])
                        time.sleep(0.002)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/live.ts"
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def test_a_live_source_of_which_the_gpu_decodes_nothing_is_left_to_the_cpu(
    tmp_path, blind_gpu, caplog
):
    caplog.set_level("WARNING", "streamer.node.node")
    path = clip(tmp_path / "clip.ts", codec="libx264", count=100)
    with sent_for_ever(path) as url:
        context = OnGpu(blind_gpu, wanted=("yuv420p",))
        decoder = solo(Decoder, context=context, url=url, live=True, timeout=0.5)
        frames = decoder.frames()
        with next(frames) as frame:
            assert frame.memory == "cuda"
        frames.close()
        decoder.close()
    assert [text for text in caplog.messages if GIVEN_UP in text] == [f"{url}: {GIVEN_UP}"]


@pytest.mark.gpu
@pytest.mark.parametrize("wanted", ["nv12", "yuv420p", "rgb24", "gray"])
@pytest.mark.parametrize(
    ("codec", "form"), [("libx264", "yuv420p"), ("libx265", "yuv420p"), ("libx265", "yuv420p10le")]
)
def test_the_gpus_decoder_gives_what_the_cpu_does(
    tmp_path, decoding_gpu, monkeypatch, codec, form, wanted
):
    path = clip(tmp_path / "clip.mp4", size=(320, 240), codec=codec, form=form, count=30)
    context = OnGpu(decoding_gpu, wanted=(wanted,))
    before = decoding_gpu.copied[Copy.TO_DEVICE]
    on_gpu = played(path, context, hwaccel="cuda")
    assert context.counts[Count.HARDWARE] == 30
    assert decoding_gpu.copied[Copy.TO_DEVICE] == before  # nothing goes up
    on_cpu = played(path, SoloContext(wanted=(wanted,)))
    for (header, pixels, memory), (expected_header, expected, _) in zip(
        on_gpu, on_cpu, strict=True
    ):
        assert memory == "cuda"
        assert (header.pts, header.format) == (expected_header.pts, expected_header.format)
        # Decoding H.264 and H.265 is exact; ten bits are rounded, and colours as elsewhere.
        exact = wanted in ("nv12", "yuv420p") and form == "yuv420p"
        assert np.abs(pixels.astype(int) - expected).max() <= (0 if exact else 4)


@pytest.mark.gpu
def test_what_the_gpus_decoder_does_not_take_is_an_error_where_it_is_asked_for(
    tmp_path, decoding_gpu
):
    path = clip(tmp_path / "clip.mkv", codec="ffv1")
    with pytest.raises(SourceError, match="the GPU decodes none of its codecs"):
        solo(Decoder, context=OnGpu(decoding_gpu), url=str(path), hwaccel="cuda")
    context = OnGpu(decoding_gpu, wanted=("yuv420p",))
    assert len(played(path, context)) == 5
    assert context.counts[Count.HARDWARE] == 0
