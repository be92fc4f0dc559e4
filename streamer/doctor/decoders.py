"""Decoders of the usual codecs, in software and on the GPU, and the protocols to read from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from streamer import gpu
from streamer.doctor.finding import Finding, Status
from streamer.errors import DeviceError

_AREA: Final = "Decode"
_VIDEO: Final = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg2video", "mpeg4", "mjpeg", "prores")
_SOUND: Final = ("aac", "mp3", "opus", "vorbis", "flac", "ac3", "pcm_s16le")
_ESSENTIAL: Final = ("h264",)
_NEED_A_HEADER: Final = ("vorbis",)  # these open only with the header of a stream
_FORMATS: Final = ("rtsp", "v4l2", "mpegts", "flv", "hls", "image2")


def look() -> Iterator[Finding]:
    """Software decoders, decoding on the GPU, and inputs."""
    yield _software("video", _VIDEO)
    yield _software("sound", _SOUND)
    yield _hardware()
    yield _inputs()


def _opens(codec: str) -> bool:
    import av
    from av.codec.codec import UnknownCodecError
    from av.error import FFmpegError

    try:
        if codec in _NEED_A_HEADER:
            return av.Codec(codec, "r").is_decoder
        context = av.CodecContext.create(codec, "r")
        if context.type == "audio":
            context.sample_rate = 48000  # type: ignore[attr-defined]
            context.layout = "stereo"  # type: ignore[attr-defined]
        context.open()
    except (UnknownCodecError, FFmpegError):
        return False
    return True


def _software(name: str, codecs: tuple[str, ...]) -> Finding:
    found = [codec for codec in codecs if _opens(codec)]
    missing = [codec for codec in codecs if codec not in found]
    status = Status.OK
    if missing:
        status = Status.FAIL if set(missing) & set(_ESSENTIAL) else Status.WARN
    return Finding(
        area=_AREA,
        name=name,
        status=status,
        detail=", ".join(found) + (f"; not {', '.join(missing)}" if missing else ""),
        advice="pip install --force-reinstall av" if missing else "",
    )


def _hardware() -> Finding:
    """Whether the first GPU decodes, by having it decode a picture."""
    from streamer.gpu import nvdec

    try:
        why = nvdec.refusal(gpu.device(0))
    except DeviceError as error:
        why = str(error)
    return Finding(
        area=_AREA,
        name="on the GPU",
        status=Status.WARN if why else Status.OK,
        detail=why or "h264 by gpu 0 (NVDEC)",
        advice="needs an NVIDIA GPU, its driver and CuPy; the CPU decodes meanwhile" if why else "",
    )


def _inputs() -> Finding:
    import av

    # One format may have several names: "video4linux2,v4l2".
    known = {name for names in av.formats_available for name in names.split(",")}
    missing = [name for name in _FORMATS if name not in known]
    return Finding(
        area=_AREA,
        name="inputs",
        status=Status.WARN if missing else Status.OK,
        detail=", ".join(name for name in _FORMATS if name not in missing)
        + (f"; not {', '.join(missing)}" if missing else ""),
        advice="pip install --force-reinstall av" if missing else "",
    )
