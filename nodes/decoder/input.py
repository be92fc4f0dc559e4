"""Opening a source with FFmpeg: its options, its picture stream, its sound stream."""

from __future__ import annotations

import time
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import av
from av.codec.context import Flags, ThreadType
from av.error import FFmpegError
from av.stream import Disposition

from nodes.decoder.address import Address, find_pictures
from nodes.decoder.faults import Fault, Reason, check_local, explain_opening
from nodes.paths import for_ffmpeg
from nodes.rate import exact_rate

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from nodes.decoder import DecoderParams
    from nodes.decoder.hwaccel import Acceleration

PICTURE_FPS: Final = 25.0
"""Pictures of a sequence are shown at this rate where none is given."""

_RTSP_TRANSPORTS: Final = {
    "tcp": {"rtsp_transport": "tcp"},
    "udp": {"rtsp_transport": "udp"},
    "auto": {"rtsp_transport": "udp+tcp", "rtsp_flags": "prefer_tcp"},
}
MARGIN: Final = 0.25
"""Seconds by which FFmpeg waits longer than the decoder: once it has waited in vain it hands over
what its parser still held, as if the source were alive."""
_BROADCAST: Final = ("mpegts", "mpeg", "hls", "rtsp", "rtp", "sdp", "flv")
_SEGMENTED: Final = ("hls", "dash")
_US = Fraction(1, 1_000_000)
_THREADS_ON_GPU: Final = 4
_VERY_WIDE = 8
"""Pixels wider than this, or narrower than its inverse, are taken for a mistake of the file."""


@dataclass(slots=True)
class Input:
    """An opened source.

    Attributes:
        container: FFmpeg's.
        video: stream of pictures.
        audio: stream of sound, None without one or where none is wanted.
        start: seconds at which the container's own time begins; None if it does not say.
        seconds: how long it plays; None if it does not say.
        frames: how many pictures it holds; None if it does not say.
        rate: pictures a second, on average; 25 if it does not say.
        still: whether it is a single picture.
        endless: whether nothing tells of an end: neither a duration nor a size.
    """

    container: InputContainer
    video: VideoStream
    audio: AudioStream | None
    start: Fraction | None
    seconds: float | None
    frames: int | None
    rate: Fraction
    still: bool
    endless: bool = False

    @property
    def is_broadcast(self) -> bool:
        """Whether it is of a form that is sent, and can be joined and changed in the middle."""
        return _form(self.container) in _BROADCAST

    @property
    def is_segmented(self) -> bool:
        """Whether its pictures come in segments, many at once."""
        return _form(self.container) in _SEGMENTED

    def pixel_shape(self) -> Fraction:
        """Width of a pixel by its height; 1 where the source does not say."""
        ratio = self.video.sample_aspect_ratio
        if self.is_broadcast:
            # There the pictures say it, and it may change; FFmpeg's stream keeps what came first.
            ratio = self.video.codec_context.sample_aspect_ratio or ratio
        if not ratio or not Fraction(1, _VERY_WIDE) <= ratio <= _VERY_WIDE:
            return Fraction(1)
        return ratio


def open_input(
    address: Address,
    params: DecoderParams,
    *,
    live: bool,
    audio: bool,
    acceleration: Acceleration | None = None,
) -> Input:
    """Opens a source and chooses its streams; blocks until it answers or times out.

    Args:
        address: what to open.
        params: the decoder's parameters.
        live: whether to decode without any delay.
        audio: whether sound is wanted.
        acceleration: the GPU's decoder; None where the CPU decodes.

    Raises:
        Fault: it cannot be opened, or has no picture that can be decoded.
    """
    form, options = None, _options(address, params)
    url, pictures = address.url, 0
    if address.kind == "device":
        form, url = "v4l2", _camera(address)
        options |= camera_options(params)
    elif address.kind == "pictures":
        form, pictures = "image2", _sequence(address, params.fps, options)
    elif address.is_local:
        check_local(address)
        url = for_ffmpeg(url)
    options |= {key: _text(value) for key, value in params.options.items()}
    form = options.pop("format", form)
    # Whoever listens waits for a sender as long as it takes.
    patience = None if _yes(options.get("listen")) else params.timeout
    begun = time.monotonic()
    try:
        container = av.open(
            url,
            format=form,
            options=options,
            timeout=(patience, params.timeout + MARGIN),
            metadata_errors="replace",
            hwaccel=None if acceleration is None else acceleration.settings(),
        )
    except FFmpegError as error:
        raise explain_opening(
            error,
            address,
            elapsed=time.monotonic() - begun,
            timeout=params.timeout,
            options=options,
        ) from None
    except RuntimeError:  # PyAV's own, where the GPU is asked for by `hwaccel: cuda`
        raise Fault(
            f"{address.shown}: the GPU decodes none of its codecs; leave hwaccel out",
            Reason.CODEC,
        ) from None
    except ValueError as error:  # PyAV's own, for an unknown format
        raise Fault(f"{address.shown} cannot be opened: {error}", Reason.ADDRESS) from None
    try:
        return _chosen(container, address, params, live=live, audio=audio, pictures=pictures)
    except BaseException:
        container.close()
        raise


def _camera(address: Address) -> str:
    """Path of a camera that is given by path, by id or by name.

    Raises:
        Fault: no camera has this name, or several have.
    """
    if address.scheme != "camera":
        return address.url
    from nodes.decoder import v4l2

    try:
        return str(v4l2.find(address.url))
    except v4l2.SeveralError as error:
        raise Fault(f"{address.shown}: {error}", Reason.ADDRESS) from None
    except LookupError as error:
        raise Fault(f"{address.shown}: {error}", Reason.NOT_FOUND, retry=True) from None


def camera_options(params: DecoderParams) -> dict[str, str]:
    """FFmpeg's options that choose what a camera sends."""
    mode = {}
    if params.fps is not None:
        mode["framerate"] = str(exact_rate(params.fps))
    if params.size is not None:
        mode["video_size"] = params.size
    if params.input_format is not None:
        mode["input_format"] = params.input_format
    return mode


def _options(address: Address, params: DecoderParams) -> dict[str, str]:
    """FFmpeg's options for a protocol: no waiting for ever, a short look at what comes."""
    limit = str(int((params.timeout + MARGIN) * 1e6))
    # Not `nobuffer`: it throws away what was looked at, the keyframe with it, and the first
    # picture would come with the next one, seconds later.
    live = {"flags": "low_delay", "fpsprobesize": "0"}
    match address.scheme:
        case "rtsp" | "rtsps":
            # All that a camera says about its streams stands in its SDP, so a short look suffices.
            return (
                live
                | _RTSP_TRANSPORTS[params.transport]
                | {
                    "timeout": limit,
                    "max_delay": "100000",
                    "probesize": "500000",
                    "analyzeduration": "500000",
                }
            )
        case "udp" | "udplite" | "rtp" | "srtp":
            # In mid-stream the first keyframe may be a second or two away.
            return live | {"timeout": limit, "analyzeduration": "3000000"}
        case "http" | "https":
            return {"rw_timeout": limit, "reconnect": "1", "reconnect_delay_max": "2"}
        case scheme if scheme.startswith("rtmp"):
            # `timeout` would make FFmpeg's RTMP listen instead of connect.
            return live | {"rw_timeout": limit, "analyzeduration": "3000000"}
        case "tcp" | "tls":
            return {"rw_timeout": limit}
    return {}


def _sequence(address: Address, fps: float | None, options: dict[str, str]) -> int:
    """Options for a picture sequence; returns how many pictures are shown.

    Raises:
        Fault: no file has such a name, or the numbers have a gap.
    """
    files = find_pictures(address.url)
    if not files:
        raise Fault(f"{address.shown}: no file has a name of this pattern", Reason.NOT_FOUND)
    options["framerate"] = str(exact_rate(fps or PICTURE_FPS))
    if "%" not in address.url:
        options["pattern_type"] = "glob"
        return len(files)
    options |= {"pattern_type": "sequence", "start_number": str(files[0][0])}
    for (before, _), (number, _) in pairwise(files):
        if number != before + 1:
            # FFmpeg would stop here and say nothing.
            raise Fault(
                f"{address.shown}: number {before + 1} is missing between {before} and {number}; "
                "with * in place of the number all pictures are shown",
                Reason.NOT_FOUND,
            )
    return len(files)


def _chosen(
    container: InputContainer,
    address: Address,
    params: DecoderParams,
    *,
    live: bool,
    audio: bool,
    pictures: int,
) -> Input:
    name = container.format.name
    if name == "tty":
        raise Fault(f"{address.shown} is a text file, not a video", Reason.CODEC)
    video = _best_video(container, address)
    best = container.streams.best("audio") if audio and params.audio else None
    sound = next((stream for stream in container.streams.audio if stream is best), None)
    context = video.codec_context
    # Each frame thread takes one more surface of the GPU's decoder, which has 32: with a thread for
    # each of many cores it would not open.
    context.thread_count = params.threads or (_THREADS_ON_GPU if context.is_hwaccel else 0)
    # Frame threads would keep one picture each; slice threads keep none.
    context.thread_type = ThreadType.SLICE if live else ThreadType.AUTO
    context.copy_opaque = True
    if live:
        context.flags |= Flags.low_delay
    rate = video.average_rate or video.guessed_rate or Fraction(25)
    frames, seconds = video.frames or None, None
    if container.duration is not None and container.duration > 0:
        seconds = container.duration * float(_US)
    if video.duration is not None and video.time_base is not None and video.duration > 0:
        seconds = float(video.duration * video.time_base)
    if pictures:
        frames, seconds = pictures, float(pictures / rate)
    still = address.kind == "file" and (name == "image2" or name.endswith("_pipe"))
    if still:
        frames, seconds = 1, None
    if frames is None and seconds is not None:
        frames = max(1, round(seconds * rate))
    start = container.start_time
    return Input(
        container=container,
        video=video,
        audio=sound if sound is not None and sound.codec_context is not None else None,
        start=None if start is None else start * _US,
        seconds=seconds,
        frames=frames,
        rate=rate,
        still=still,
        # The size of a playlist says nothing about what is played.
        endless=seconds is None
        and not still
        and not pictures
        and (_form(container) in _SEGMENTED or container.size <= 0),
    )


def _form(container: InputContainer) -> str:
    """FFmpeg's first name for what the source is written in."""
    return container.format.name.split(",")[0]


def _best_video(container: InputContainer, address: Address) -> VideoStream:
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic  # the cover of a record
    ]
    if not streams:
        sound = " has sound but no picture" if container.streams.audio else " has no picture in it"
        raise Fault(f"{address.shown}{sound}; a source of video is needed", Reason.CODEC)
    best = container.streams.best("video")
    stream = next((stream for stream in streams if stream is best), streams[0])
    if stream.codec_context is None:
        raise Fault(
            f"{address.shown}: its picture is coded in a way ({stream.codec_tag!r}) that this "
            "FFmpeg cannot decode; convert it to H.264, say",
            Reason.CODEC,
        )
    return stream


def _yes(value: str | None) -> bool:
    return value not in (None, "", "0", "false")


def _text(value: str | int | float | bool) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
