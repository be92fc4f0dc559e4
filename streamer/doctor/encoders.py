"""Encoders: each is opened and given a picture, or a moment of silence, to encode."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final, NamedTuple

from streamer.doctor.finding import Finding, Status
from streamer.priority import ordinary_priority

_AREA: Final = "Encode"
_SIDE: Final = 256
_TRIES: Final = 80  # pictures to give before an encoder that looks ahead must have answered


class _Encoder(NamedTuple):
    codec: str
    use: str
    missing: Status
    advice: str


_WHEEL: Final = "pip install --force-reinstall av (its wheel has it)"
_GPU: Final = "needs an NVIDIA GPU with an encoder and its driver; x264 is used meanwhile"
_VIDEO: Final = (
    _Encoder("libx264", "H.264, for files, OBS, RTMP and RTSP", Status.FAIL, _WHEEL),
    _Encoder("h264_nvenc", "H.264 on the GPU", Status.WARN, _GPU),
    _Encoder("libvpx-vp9", "VP9, for webm", Status.WARN, _WHEEL),
    _Encoder("libsvtav1", "AV1", Status.WARN, _WHEEL),
    _Encoder("libx265", "H.265", Status.WARN, _WHEEL),
    _Encoder("mjpeg", "JPEG pictures", Status.WARN, _WHEEL),
    _Encoder("png", "PNG pictures", Status.WARN, _WHEEL),
)
_SOUND: Final = (
    _Encoder("aac", "sound in mp4, RTMP and MPEG-TS", Status.WARN, _WHEEL),
    _Encoder("libopus", "sound in webm", Status.WARN, _WHEEL),
)
_QUIET: Final = {"libx265": {"x265-params": "log-level=none"}}


def look() -> Iterator[Finding]:
    """Every encoder that the built-in nodes may choose."""
    # SVT-AV1 writes to the terminal by itself; 1 leaves its errors.
    os.environ.setdefault("SVT_LOG", "1")
    for encoder in _VIDEO:
        yield _finding(encoder, _try_video)
    for encoder in _SOUND:
        yield _finding(encoder, _try_sound)


def _finding(encoder: _Encoder, attempt: Any) -> Finding:
    from av.codec.codec import UnknownCodecError
    from av.error import FFmpegError

    try:
        attempt(encoder.codec)
    except (FFmpegError, UnknownCodecError, ValueError) as error:
        why = getattr(error, "strerror", None) or "FFmpeg was built without it"
        return Finding(
            area=_AREA,
            name=encoder.codec,
            status=encoder.missing,
            detail=f"{encoder.use}: does not open ({why})",
            advice=encoder.advice,
        )
    return Finding(area=_AREA, name=encoder.codec, status=Status.OK, detail=encoder.use)


def _try_video(codec: str) -> None:
    """Encodes one picture; raises if there comes no packet."""
    import av
    from av.video.frame import VideoFrame

    context: Any = av.CodecContext.create(codec, "w")
    formats = [format.name for format in av.Codec(codec, "w").video_formats or ()]
    context.pix_fmt = "yuv420p" if "yuv420p" in formats else formats[0]
    context.width = context.height = _SIDE
    context.time_base = Fraction(1, 30)
    context.options = dict(_QUIET.get(codec, {}))
    if codec == "mjpeg":
        context.color_range = 2
    with ordinary_priority():
        context.open()
    packets = 0
    for number in range(_TRIES):
        frame = VideoFrame(_SIDE, _SIDE, context.pix_fmt)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts, frame.time_base = number, context.time_base
        packets += len(context.encode(frame))
        if packets or number == 3:
            break
    packets += len(context.encode(None))
    if not packets:
        raise ValueError("it gave no packet")


def _try_sound(codec: str) -> None:
    """Encodes a moment of silence; raises if there comes no packet."""
    import av
    from av.audio.frame import AudioFrame

    context: Any = av.CodecContext.create(codec, "w")
    context.sample_rate, context.layout = 48000, "stereo"
    context.format = av.Codec(codec, "w").audio_formats[0]  # type: ignore[index]
    context.time_base = Fraction(1, 48000)
    context.open()
    samples = context.frame_size or 960
    frame = AudioFrame(format=context.format.name, layout="stereo", samples=samples)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, context.time_base
    if not len(context.encode(frame)) + len(context.encode(None)):
        raise ValueError("it gave no packet")
