"""Video encoders: which one to take, how to set it up, and whether this machine has it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final, cast

import av
from av.codec.codec import UnknownCodecError
from av.codec.context import Flags, ThreadType
from av.error import FFmpegError
from av.video.reformatter import ColorRange

from nodes.encoder.failures import reason
from nodes.encoder.on_gpu import surfaces_of
from nodes.encoder.outputs import WHIP, Container, Output
from nodes.encoder.params import EncoderParams, bits_per_second
from streamer import ParameterError
from streamer.errors import DeviceError
from streamer.priority import ordinary_priority

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

_PROBE_SIDE: Final = 256  # smaller ones are refused by hardware encoders
_NOMINAL_RATE: Final = Fraction(30)
# Pictures that an encoder for files holds back to look ahead: a sudden death loses them, so that
# recordings hold few. A number and not a time, for they may come at far less than their rate.
_HELD: Final[Mapping[str, Mapping[str, str]]] = {
    "libx264": {"rc-lookahead": "20"},
    "libvpx-vp9": {"lag-in-frames": "12"},
}
_HELD_BRIEFLY: Final[Mapping[str, Mapping[str, str]]] = {
    "libx264": {"bf": "2", "rc-lookahead": "6", "x264-params": "sync-lookahead=0"},
    "libvpx-vp9": {"lag-in-frames": "6"},
}
_LAMBDA: Final = 118  # FF_QP2LAMBDA: units of global_quality in one step of a quantiser


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How one encoder is set up.

    Attributes:
        always: options of every output.
        live: options where latency counts.
        filed: options where size and quality count.
        preset: name of the option that trades speed for size, and its value live and filed.
        quality: name of the option of constant quality, and its value live and filed.
        frees: whether it copies the picture while it is sent, so that it may be handed the very
            memory of the frame; a test holds each of these to it.
    """

    always: Mapping[str, str] = field(default_factory=dict)
    live: Mapping[str, str] = field(default_factory=dict)
    filed: Mapping[str, str] = field(default_factory=dict)
    preset: tuple[str, str, str] | None = None
    quality: tuple[str, float, float] | None = None
    frees: bool = False


_NVENC = _Recipe(
    # A picture whose type is asked for must become a point of entry, not just an intra picture.
    always={"forced-idr": "1", "rc": "vbr", "bf": "0", "delay": "0"},
    live={"tune": "ull", "zerolatency": "1"},
    filed={"tune": "hq", "spatial-aq": "1"},
    preset=("preset", "p3", "p5"),
    quality=("cq", 25, 22),
)
# FFmpeg's own encoders of this family take the quantiser from each picture, where PyAV cannot write
# it; between two limits that are the same, there is no other.
_QUANTISED = _Recipe(quality=("qmin", 4, 3))
_LEAST_QUANTISER, _MOST_QUANTISER = 1, 31
_RECIPES: Final[dict[str, _Recipe]] = {
    "libx264": _Recipe(
        always={"forced-idr": "1"},
        live={"tune": "zerolatency", "bf": "0", "sc_threshold": "0"},
        preset=("preset", "veryfast", "veryfast"),
        quality=("crf", 23, 20),
        frees=True,
    ),
    "libx265": _Recipe(
        always={"forced-idr": "1", "x265-params": "log-level=none"},
        live={"tune": "zerolatency", "bf": "0"},
        filed={},
        preset=("preset", "ultrafast", "fast"),
        quality=("crf", 26, 24),
        frees=True,
    ),
    "libvpx-vp9": _Recipe(
        always={"row-mt": "1", "deadline": "realtime"},
        live={"lag-in-frames": "0", "error-resilient": "1"},
        filed={"auto-alt-ref": "1"},
        preset=("cpu-used", "8", "6"),
        quality=("crf", 34, 30),
        frees=True,
    ),
    "libvpx": _Recipe(
        always={"deadline": "realtime"},
        live={"lag-in-frames": "0"},
        preset=("cpu-used", "8", "4"),
        quality=("crf", 12, 10),
        frees=True,
    ),
    "libsvtav1": _Recipe(
        live={"svtav1-params": "pred-struct=1:lookahead=0"},
        preset=("preset", "12", "10"),
        quality=("crf", 38, 34),
        frees=True,
    ),
    "h264_nvenc": _NVENC,
    "hevc_nvenc": _NVENC,
    "av1_nvenc": _NVENC,
    "mjpeg": _Recipe(quality=("qmin", 3, 2)),
    "mpeg4": _QUANTISED,
    "mpeg2video": _QUANTISED,
    "png": _Recipe(),
    "rawvideo": _Recipe(),
    "ffv1": _Recipe(),
    "prores_ks": _Recipe(),
    "mpeg1video": _QUANTISED,
    "flv": _QUANTISED,
    "h263p": _QUANTISED,
    "msmpeg4v2": _QUANTISED,
    "msmpeg4": _QUANTISED,
    "wmv1": _QUANTISED,
    "wmv2": _QUANTISED,
}
_OTHER = _Recipe(quality=("qscale", 4, 3))
_ZERO_BITRATE_MEANS_QUALITY = ("libvpx-vp9", "libvpx")
_LOSSLESS = ("png", "rawvideo", "ffv1", "huffyuv", "ffvhuff", "qtrle", "gif", "apng", "bmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A chosen encoder and its settings.

    Attributes:
        codec: FFmpeg's name of the encoder.
        live: whether latency comes before size.
        options: by FFmpeg's names.
        bits: bits a second to keep to, or None for constant quality.
        qscale: quantiser to keep to, for encoders that know no other constant quality.
        interval: most seconds between two keyframes.
        rate: announced pictures a second; None takes it from the pictures.
        frees: whether the encoder may be handed the very memory of a frame.
        brief: whether to hold few pictures back, since a sudden death would lose them.
        surfaces: GPU in whose memory the encoder reads pictures; None: it reads host memory.
    """

    codec: str
    live: bool
    options: dict[str, str]
    bits: int | None
    qscale: float | None
    interval: Fraction
    rate: Fraction | None
    frees: bool
    brief: bool = False
    surfaces: int | None = None

    @property
    def formats(self) -> tuple[str, ...]:
        """Pixel formats that the encoder takes, best first; empty if it does not say."""
        if self.surfaces is not None:
            return ("nv12",)
        return tuple(item.name for item in av.Codec(self.codec, "w").video_formats or ())

    def context(
        self, context: VideoCodecContext, *, width: int, height: int, format: str, rate: Fraction
    ) -> None:
        """Writes the settings into an encoder that is not open yet.

        Args:
            context: of `self.codec`; its time base is set by the caller.
            width: pixels.
            height: pixels.
            format: FFmpeg's name of the pixel format.
            rate: announced pictures a second.
        """
        context.width, context.height, context.pix_fmt = width, height, format
        context.framerate = rate
        # Keyframes are asked for by time, since pictures may come at any rate; this count is a
        # limit beyond reach. Too large a number is refused by some encoders.
        context.gop_size = min(2000, max(2, round(float(self.interval * rate) * 4)))
        if self.codec not in _LOSSLESS:
            context.flags |= Flags.frame_duration
        if self.codec == "mjpeg":
            context.color_range = ColorRange.JPEG
        if self.bits is not None:
            context.bit_rate = self.bits
        if self.qscale is not None:
            context.flags |= Flags.qscale
            context.global_quality = round(self.qscale * _LAMBDA)
        if self.codec == "libx264" and not (self.live or self.brief):
            # Whole pictures in parallel: slices, PyAV's default, cost size and speed.
            context.thread_type = ThreadType.FRAME
        held = {} if self.live else (_HELD_BRIEFLY if self.brief else _HELD).get(self.codec, {})
        context.options = {**held, **self.options}


def choose(
    output: Output,
    params: EncoderParams,
    *,
    gpu: int | None = None,
    brief: bool = False,
    surfaces: bool = False,
) -> Setup:
    """The encoder for an output, opened once to see that it works with these settings.

    Args:
        output: any output but `null:`.
        params: of the node.
        gpu: ordinal of the CUDA device for NVENC, or None for the first.
        brief: whether a file is to lose little by a sudden death, as recordings are.
        surfaces: whether pictures may lie in the GPU's memory, where its own encoder reads them.

    Raises:
        ParameterError: an unknown or unsuitable codec, preset or option, or none that opens.
    """
    # SVT-AV1 writes to the terminal by itself; 1 leaves its errors.
    os.environ.setdefault("SVT_LOG", "1")
    if params.codec != "auto":
        _check_name(params.codec)
        _check_held(output, params.codec)
        names = [params.codec]
    else:
        names = list(output.container.video)
    *better, last = names
    where = gpu if surfaces else None
    for name in better:
        try:
            return _best(replace(_setup(name, output, params, gpu), brief=brief), where)
        except (ParameterError, UnknownCodecError):
            continue
    return _best(replace(_setup(last, output, params, gpu), brief=brief), where)


def _setup(codec: str, output: Output, params: EncoderParams, gpu: int | None) -> Setup:
    recipe = _RECIPES.get(codec, _OTHER)
    live = output.live
    options = {**recipe.always, **(recipe.live if live else recipe.filed)}
    if output.container is WHIP:
        options["profile"] = "baseline"  # what every browser takes
    if codec.endswith("_nvenc") and gpu is not None:
        options["gpu"] = str(gpu)
    if recipe.preset is not None:
        name, at_once, later = recipe.preset
        options[name] = params.preset or (at_once if live else later)
    elif params.preset is not None:
        raise ParameterError(
            f"no presets of the codec {codec} are known; leave out preset={params.preset}, or give "
            "the codec's own under options"
        )
    bits: int | None = None
    qscale: float | None = None
    if params.bitrate is not None:
        bits = bits_per_second(params.bitrate)
        # A buffer of one second, of half a second live: no picture may take long to send.
        options["maxrate"] = str(bits)
        options["bufsize"] = str(bits // 2 if live else bits)
    elif recipe.quality is not None:
        name, quick, fine = recipe.quality
        value = params.quality if params.quality is not None else (quick if live else fine)
        if name == "qscale":
            qscale = value
        elif name == "qmin":
            options["qmin"] = options["qmax"] = _quantiser(codec, value)
        else:
            options[name] = f"{value:g}"
            if codec in _ZERO_BITRATE_MEANS_QUALITY:
                options["b"] = "0" if codec == "libvpx-vp9" else "8M"
    elif params.quality is not None:
        raise ParameterError(f"the codec {codec} has no quality; leave out {params.quality:g}")
    if codec in _LOSSLESS and bits is not None:
        raise ParameterError(f"the codec {codec} has no bit rate; leave out bitrate")
    options.update({name: _text(value) for name, value in params.options.items()})
    interval = params.keyframe_interval or (1 if live else 2)
    return Setup(
        codec=codec,
        live=live,
        options=options,
        bits=bits,
        qscale=qscale,
        interval=Fraction(interval).limit_denominator(1000),
        rate=params.rate,
        frees=recipe.frees,
    )


def _quantiser(codec: str, quality: float) -> str:
    if quality != int(quality) or not _LEAST_QUANTISER <= quality <= _MOST_QUANTISER:
        raise ParameterError(
            f"the quality of the codec {codec} is a whole number from {_LEAST_QUANTISER} (best) "
            f"to {_MOST_QUANTISER}, not {quality:g}"
        )
    return str(int(quality))


def _text(value: str | float | bool) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _best(setup: Setup, gpu: int | None) -> Setup:
    """The setup of an encoder that opens, reading a GPU's memory if it can."""
    if gpu is not None and setup.codec.endswith("_nvenc"):
        try:
            return _probed(replace(setup, surfaces=gpu))
        except (ParameterError, DeviceError, FFmpegError, NotImplementedError):
            pass  # of host memory it may open all the same, or say what is wrong
    return _probed(setup)


def _probed(setup: Setup) -> Setup:
    """Opens an encoder with the settings and lets it go."""
    made = av.CodecContext.create(setup.codec, "w", surfaces_of(setup.surfaces))
    context = cast("VideoCodecContext", made)
    formats = setup.formats
    format = "yuv420p" if "yuv420p" in formats or not formats else formats[0]
    context.time_base = 1 / _NOMINAL_RATE
    setup.context(context, width=_PROBE_SIDE, height=_PROBE_SIDE, format=format, rate=_NOMINAL_RATE)
    try:
        with ordinary_priority():
            context.open()
    except FFmpegError as error:
        advice = "correct preset, quality and options, or choose another codec"
        if setup.codec.endswith("_nvenc"):
            advice = "it needs an NVIDIA GPU that encodes; or set codec to auto"
        raise ParameterError(
            f"the codec {setup.codec} does not open with {_listed(setup)}: {reason(error)}; "
            + advice
        ) from error
    unknown = sorted(set(context.options) & set(setup.options))
    if unknown:
        known = context.supported_options
        names = [item.name for item in (*known.private, *known.generic)]
        raise ParameterError(
            f"the codec {setup.codec} has no option {unknown[0]!r}" + _suggestion(unknown[0], names)
        )
    return setup


def _listed(setup: Setup) -> str:
    return ", ".join(f"{name}={value}" for name, value in setup.options.items()) or "its defaults"


def _suggestion(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _check_name(name: str) -> None:
    try:
        if av.Codec(name, "w").type == "video":
            return
        raise ParameterError(f"the codec {name!r} is not a video codec")
    except UnknownCodecError:
        names = sorted(_video_encoders())
        hint = _suggestion(name, names) or f"; usual ones: {', '.join(_usual(names))}"
        raise ParameterError(f"FFmpeg has no encoder {name!r} here{hint}") from None


def _video_encoders() -> set[str]:
    found = set()
    for name in av.codecs_available:
        try:
            codec = av.Codec(name, "w")
        except UnknownCodecError:
            continue
        if codec.type == "video":
            found.add(name)
    return found


def _usual(names: list[str]) -> list[str]:
    return [name for name in _RECIPES if name in names]


def _check_held(output: Output, name: str) -> None:
    """Raises ParameterError if the container cannot hold what the encoder makes."""
    if not can_hold(output.container, name):
        suited = [known for known in _RECIPES if can_hold(output.container, known)]
        raise ParameterError(
            f"{output.shown} cannot hold the codec {name}; it takes "
            f"{', '.join(suited) or 'no other'}: set codec to auto or one of these"
        )


def can_hold(container: Container, name: str) -> bool:
    """Whether a container can hold what an encoder of this name makes."""
    if container.holds:
        return av.Codec(name, "w").canonical_name in container.holds
    with av.open(os.devnull, "w", format=container.muxer) as scratch:
        try:
            scratch.add_stream(name)
        except ValueError:
            return False
    return True
