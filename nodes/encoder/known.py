"""What this machine's FFmpeg knows: its encoders, their options, and what a container can hold."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence

import av
from av.codec.codec import UnknownCodecError

from nodes.encoder.outputs import Container, Output
from nodes.encoder.recipes import RECIPES


def check_codec(name: str) -> None:
    """Raises ValueError if FFmpeg has no video encoder of this name."""
    try:
        if av.Codec(name, "w").type == "video":
            return
        raise ValueError(f"the codec {name!r} is not a video codec")
    except UnknownCodecError:
        names = sorted(_video_encoders())
        usual = ", ".join(known for known in RECIPES if known in names)
        hint = _suggestion(name, names) or f"; usual ones: {usual}"
        raise ValueError(f"FFmpeg has no encoder {name!r} here{hint}") from None


def check_held(output: Output, name: str) -> None:
    """Raises ValueError if an output's container cannot hold what an encoder makes."""
    if not _can_hold(output.container, name):
        suited = [known for known in RECIPES if _can_hold(output.container, known)]
        raise ValueError(
            f"{output.shown} cannot hold the codec {name}; it takes "
            f"{', '.join(suited) or 'no other'}: set codec to auto or one of these"
        )


def check_options(encoders: Sequence[str], options: Iterable[str]) -> None:
    """Raises ValueError if an option is of none of the encoders that FFmpeg has."""
    present = [name for name in encoders if name in av.codecs_available]
    known = {option for name in present for option in _options_of(name)}
    for option in options:
        if present and option not in known:
            raise ValueError(no_option(present[-1], option))


def no_option(codec: str, name: str) -> str:
    """The sentence for an option that an encoder does not have."""
    return f"the codec {codec} has no option {name!r}" + _suggestion(name, _options_of(codec))


def _options_of(codec: str) -> list[str]:
    known = av.CodecContext.create(codec, "w").supported_options
    return [item.name for item in (*known.private, *known.generic)]


def _suggestion(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


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


def _can_hold(container: Container, name: str) -> bool:
    if container.holds:
        return av.Codec(name, "w").canonical_name in container.holds
    with av.open(os.devnull, "w", format=container.muxer) as scratch:
        try:
            scratch.add_stream(name)
        except ValueError:
            return False
    return True
