"""The whole graph, from an H.264 file to an H.264 file: a process for each of its four nodes."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import streamer
from nodes.sdxs.bench.rig import PROMPT, WITH_CONTROL
from streamer.bench.acceptance.goals import Conditions, Outcome

if TYPE_CHECKING:
    from streamer.runtime import Report

_SECONDS: Final = 12.0
"""that the clip lasts, after its slow beginning"""
_SLOW: Final = 3
"""pictures at the beginning of the clip"""
_GAP: Final = Fraction(5, 2)
"""seconds between those: libraries load kernels for the first picture, and the model is captured
beside the next; that is no part of the pace, and fewer pictures than a p99 is made of"""
_LINKS: Final = 500.0
"""microseconds of all links together, p50"""
FEW_FPS: Final = 5
"""pictures a second of a trial"""
_FEW_SECONDS: Final = 5.0
_PERIOD: Final = 64
"""different pictures of a clip"""
SUBSAMPLED: Final = Fraction(3, 2)
"""bytes a pixel of YUV with halved chroma, the least that a picture is moved in"""


def delivered(
    conditions: Conditions, *, fps: int, share: float, age: float | None = None
) -> Outcome:
    """Whether the pictures of a clip, played at its own pace, come out at the end, and how old.

    Args:
        conditions: under which.
        fps: pictures a second of the clip.
        share: of the pictures that must come.
        age: milliseconds that they may be old at most, p99; None for any age.
    """
    report = _run(conditions, fps)
    sink = report.sinks["out"]
    found = sink.age_ms["p99"]
    text = f"{sink.delivered} of {sink.captured}"
    if sink.dropped:
        text += f" ({', '.join(f'{count} {reason}' for reason, count in sink.dropped.items())})"
    text += f", age p50 {_number(sink.age_ms['p50'])} p99 {_number(found)} ms"
    reached = sink.captured > 0 and sink.delivered >= share * sink.captured
    if age is not None:
        reached &= found is not None and found < age
    return Outcome(text, reached, {"clip_fps": fps, "report": report.to_dict()})


def links(conditions: Conditions, *, fps: int) -> Outcome:
    """How long all links together take for a picture, from the run of `delivered`."""
    found = {
        key: link.hop_us["p50"]
        for key, link in _run(conditions, fps).links.items()
        if link.frames and not key.endswith(":audio")
    }
    total = sum(us or 0.0 for us in found.values())
    text = f"{total:.0f} µs ({', '.join(f'{key} {us or 0:.0f}' for key, us in found.items())})"
    return Outcome(text, bool(found) and total < _LINKS, {"p50_us": found})


def moved(conditions: Conditions, *, fps: int) -> Outcome:
    """Bytes a picture between host and GPU, and copies by links, from the run of `delivered`."""
    report = _run(conditions, fps)
    found = bytes_moved(report)
    least = bytes_at_least(report, WITH_CONTROL.under(conditions).side)
    text = f"up {found[0]:.0f} of {least[0]:.0f}, down {found[1]:.0f} of {least[1]:.0f}"
    figures = {
        "up": found[0],
        "down": found[1],
        "least_up": least[0],
        "least_down": least[1],
        "copies_per_frame": {name: node.copies_per_frame for name, node in report.nodes.items()},
    }
    # Each is rounded to a tenth of a byte.
    return Outcome(text, all(abs(a - b) < 1 for a, b in zip(found, least, strict=True)), figures)


def _run(conditions: Conditions, fps: int) -> Report:
    return _once(conditions, FEW_FPS if conditions.fake else fps)


@cache
def _once(conditions: Conditions, fps: int) -> Report:
    return streamer.run(graph(conditions, fps=fps))


def graph(
    conditions: Conditions, *, fps: int, out: tuple[str, dict[str, Any]] | None = None
) -> streamer.Graph:
    """Decoder, preprocess, sdxs and a sink on the GPU, played at the clip's own pace.

    Args:
        conditions: under which.
        fps: pictures a second of the clip.
        out: kind and parameters of the sink; an encoder that writes a file by default.
    """
    fps = FEW_FPS if conditions.fake else fps
    kind, options = out or ("encoder", {"url": str(conditions.folder / f"styled-{fps}.mp4")})
    model = WITH_CONTROL.under(conditions)
    seconds = _FEW_SECONDS if conditions.fake else _SECONDS
    clip = conditions.folder / f"clip-{fps}.mp4"
    if not clip.exists():
        slow = 1 if conditions.fake else _SLOW
        make_clip(clip, side=model.side, fps=fps, slow=slow, frames=round(fps * seconds))
    style: dict[str, Any] = {"model": model.name, "control": "random", "prompt": PROMPT}
    style["loading"] = "hold"  # every picture that is counted is a styled one
    if conditions.fake:
        style["device"] = "cpu"
    return streamer.Graph.from_dict(
        {
            "name": f"acceptance-{fps}",
            "nodes": {
                "clip": {
                    "uses": "decoder",
                    "with": {"url": str(clip), "realtime": True, "audio": False},
                    "gpu": 0,
                },
                "crop": {
                    "uses": "preprocess",
                    "from": "clip",
                    "with": {"size": f"{model.side}x{model.side}", "fit": "cover"},
                    "gpu": 0,
                },
                "style": {"uses": "sdxs", "from": "crop", "with": style, "gpu": 0},
                "out": {
                    "uses": kind,
                    "from": "style",
                    "with": options,
                    "gpu": 0,
                },
            },
        }
    )


def bytes_moved(report: Report) -> tuple[float, float]:
    """Bytes a picture from the host to the GPU, and back, by all nodes together."""
    nodes = report.nodes.values()
    return (
        sum(node.to_gpu_bytes or 0.0 for node in nodes),
        sum(node.from_gpu_bytes or 0.0 for node in nodes),
    )


def bytes_at_least(report: Report, side: int) -> tuple[float, float]:
    """The least that they can be: none where the GPU's own codec has worked on every picture.

    Args:
        report: of a run whose first node is `clip` and whose last is `out`.
        side: of the pictures, pixels.
    """
    picture = float(side * side * SUBSAMPLED)

    def least(name: str) -> float:
        node = report.nodes[name]
        by_gpu = (node.hardware or 0) / node.frames if node.frames else 0.0
        return round(picture * max(0.0, 1.0 - by_gpu), 1)

    return least("clip"), least("out")


def make_clip(path: Path, *, side: int, fps: int, slow: int, frames: int) -> None:
    """Writes an H.264 file of moving waves with some noise, which begins slowly.

    Args:
        path: of the file.
        side: of the pictures, pixels.
        fps: pictures a second.
        slow: pictures before that, each shown for `_GAP`.
        frames: pictures at that pace.
    """
    import av
    import numpy as np

    dice = np.random.default_rng(0)
    noise = dice.integers(0, 24, (side, side, 3), np.uint8)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    period = []
    for turn in np.linspace(0, 2 * np.pi, _PERIOD, endpoint=False, dtype=np.float32):
        waves = [np.sin(9 * x + turn), np.sin(7 * y - turn), np.sin(5 * (x + y) + 2 * turn)]
        period.append((115 + 100 * np.stack(waves, axis=-1)).astype(np.uint8) + noise)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23"}
        stream.time_base = tick = Fraction(1, 2 * fps)  # of which the gap is a multiple
        for number in range(slow + frames):
            picture = av.VideoFrame.from_ndarray(period[number % _PERIOD], format="rgb24")
            picture.time_base = tick
            begun = min(number, slow)
            picture.pts = round(begun * _GAP / tick) + 2 * (number - begun)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f}"
