"""Video encoders: which one to take, how to set it up, and whether this machine has it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final, cast

import av
from av.codec.codec import UnknownCodecError
from av.codec.context import Flags, ThreadType
from av.error import FFmpegError
from av.video.reformatter import ColorRange

from nodes.encoder.failures import reason
from nodes.encoder.known import no_option
from nodes.encoder.on_gpu import surfaces_of
from nodes.encoder.outputs import WHIP, Output
from nodes.encoder.params import EncoderParams, bits_per_second
from nodes.encoder.recipes import LOSSLESS, recipe_of
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
_ZERO_BITRATE_MEANS_QUALITY = ("libvpx-vp9", "libvpx")


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
        if self.codec not in LOSSLESS:
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
        ParameterError: none opens with these settings.
    """
    # SVT-AV1 writes to the terminal by itself; 1 leaves its errors.
    os.environ.setdefault("SVT_LOG", "1")
    *better, last = output.encoders(params.codec)
    where = gpu if surfaces else None
    for name in better:
        try:
            return _best(replace(_setup(name, output, params, gpu), brief=brief), where)
        except (ParameterError, UnknownCodecError):
            continue
    return _best(replace(_setup(last, output, params, gpu), brief=brief), where)


def _setup(codec: str, output: Output, params: EncoderParams, gpu: int | None) -> Setup:
    recipe = recipe_of(codec)
    live = output.live
    options = {**recipe.always, **(recipe.live if live else recipe.filed)}
    if output.container is WHIP:
        options["profile"] = "baseline"  # what every browser takes
    if codec.endswith("_nvenc") and gpu is not None:
        options["gpu"] = str(gpu)
    if recipe.preset is not None:
        name, at_once, later = recipe.preset
        options[name] = params.preset or (at_once if live else later)
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
            options["qmin"] = options["qmax"] = str(int(value))
        else:
            options[name] = f"{value:g}"
            if codec in _ZERO_BITRATE_MEANS_QUALITY:
                options["b"] = "0" if codec == "libvpx-vp9" else "8M"
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
        raise ParameterError(no_option(setup.codec, unknown[0]))
    return setup


def _listed(setup: Setup) -> str:
    return ", ".join(f"{name}={value}" for name, value in setup.options.items()) or "its defaults"
