"""How each video encoder is set up, and what can be asked of it; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Recipe:
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


_NVENC = Recipe(
    # A picture whose type is asked for must become a point of entry, not just an intra picture.
    always={"forced-idr": "1", "rc": "vbr", "bf": "0", "delay": "0"},
    live={"tune": "ull", "zerolatency": "1"},
    filed={"tune": "hq", "spatial-aq": "1"},
    preset=("preset", "p3", "p5"),
    quality=("cq", 25, 22),
)
# FFmpeg's own encoders of this family take the quantiser from each picture, where PyAV cannot write
# it; between two limits that are the same, there is no other.
_QUANTISED = Recipe(quality=("qmin", 4, 3))
RECIPES: Final[dict[str, Recipe]] = {
    "libx264": Recipe(
        always={"forced-idr": "1"},
        live={"tune": "zerolatency", "bf": "0", "sc_threshold": "0"},
        preset=("preset", "veryfast", "veryfast"),
        quality=("crf", 23, 20),
        frees=True,
    ),
    "libx265": Recipe(
        always={"forced-idr": "1", "x265-params": "log-level=none"},
        live={"tune": "zerolatency", "bf": "0"},
        filed={},
        preset=("preset", "ultrafast", "fast"),
        quality=("crf", 26, 24),
        frees=True,
    ),
    "libvpx-vp9": Recipe(
        always={"row-mt": "1", "deadline": "realtime"},
        live={"lag-in-frames": "0", "error-resilient": "1"},
        filed={"auto-alt-ref": "1"},
        preset=("cpu-used", "8", "6"),
        quality=("crf", 34, 30),
        frees=True,
    ),
    "libvpx": Recipe(
        always={"deadline": "realtime"},
        live={"lag-in-frames": "0"},
        preset=("cpu-used", "8", "4"),
        quality=("crf", 12, 10),
        frees=True,
    ),
    "libsvtav1": Recipe(
        live={"svtav1-params": "pred-struct=1:lookahead=0"},
        preset=("preset", "12", "10"),
        quality=("crf", 38, 34),
        frees=True,
    ),
    "h264_nvenc": _NVENC,
    "hevc_nvenc": _NVENC,
    "av1_nvenc": _NVENC,
    "mjpeg": Recipe(quality=("qmin", 3, 2)),
    "mpeg4": _QUANTISED,
    "mpeg2video": _QUANTISED,
    "png": Recipe(),
    "rawvideo": Recipe(),
    "ffv1": Recipe(),
    "prores_ks": Recipe(),
    "mpeg1video": _QUANTISED,
    "flv": _QUANTISED,
    "h263p": _QUANTISED,
    "msmpeg4v2": _QUANTISED,
    "msmpeg4": _QUANTISED,
    "wmv1": _QUANTISED,
    "wmv2": _QUANTISED,
}
_OTHER: Final = Recipe(quality=("qscale", 4, 3))
LOSSLESS: Final = ("png", "rawvideo", "ffv1", "huffyuv", "ffvhuff", "qtrle", "gif", "apng", "bmp")
_LEAST_QUANTISER, _MOST_QUANTISER = 1, 31


def recipe_of(codec: str) -> Recipe:
    """How an encoder is set up; one that is not known by name, too."""
    return RECIPES.get(codec, _OTHER)


def check_quality(codec: str, quality: float) -> None:
    """Raises ValueError if an encoder has no constant quality, or none of this value."""
    recipe = recipe_of(codec)
    if recipe.quality is None:
        raise ValueError(f"the codec {codec} has no quality; leave out {quality:g}")
    if recipe.quality[0] != "qmin":
        return
    if quality != int(quality) or not _LEAST_QUANTISER <= quality <= _MOST_QUANTISER:
        raise ValueError(
            f"the quality of the codec {codec} is a whole number from {_LEAST_QUANTISER} (best) "
            f"to {_MOST_QUANTISER}, not {quality:g}"
        )


def check_bitrate(codec: str) -> None:
    """Raises ValueError if an encoder cannot keep to a bit rate."""
    if codec in LOSSLESS:
        raise ValueError(f"the codec {codec} has no bit rate; leave out bitrate")


def check_preset(codec: str, preset: str) -> None:
    """Raises ValueError if an encoder has no presets."""
    if recipe_of(codec).preset is None:
        raise ValueError(
            f"no presets of the codec {codec} are known; leave out preset={preset}, or give the "
            "codec's own under options"
        )
