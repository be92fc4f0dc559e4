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

_SECONDS: Final = 20.0
"""that the clip lasts, after its slow beginning"""
_SLOW: Final = 4
"""pictures at the beginning of the clip"""
_GAP: Final = Fraction(5, 2)
"""seconds between those: libraries load kernels for the first picture, and the model is captured
beside the next; that is no part of the pace, and fewer pictures than a p99 is made of"""
_AGE: Final = 50.0
"""milliseconds, p99"""
_LINKS: Final = 500.0
"""microseconds of all links together, p50"""
_FEW_FPS: Final = 5
_FEW_SECONDS: Final = 2.0
SUBSAMPLED: Final = Fraction(3, 2)
"""bytes a pixel of YUV with halved chroma, the least that a picture is moved in"""


def paced(
    conditions: Conditions,
    *,
    fps: int,
    delivered: float,
    whole: bool = False,
) -> Outcome:
    """Runs the graph over a clip that is played at its own pace.

    Args:
        conditions: under which.
        fps: pictures a second of the clip.
        delivered: share of the pictures that must be.
        whole: whether age, links and bytes are goals, too.
    """
    if conditions.fake:
        fps = _FEW_FPS
    report = _run(conditions, fps)
    sink = report.sinks["out"]
    links = sum(link.hop_us["p50"] or 0.0 for link in report.links.values())
    side = WITH_CONTROL.under(conditions).side
    moved, least = bytes_moved(report), bytes_at_least(report, side)
    age = sink.age_ms["p99"]
    reached = sink.captured > 0 and sink.delivered >= delivered * sink.captured
    text = f"{sink.delivered} of {sink.captured} delivered at {fps} FPS"
    if sink.dropped:
        text += f" ({', '.join(f'{n} {reason}' for reason, n in sink.dropped.items())})"
    text += f", age p99 {_number(age)} ms, links {links:.0f} µs"
    text += f", bytes a picture up {moved[0]:.0f} down {moved[1]:.0f}"
    text += f" (least {least[0]:.0f} and {least[1]:.0f})"
    if whole:
        reached &= age is not None and age < _AGE and links < _LINKS and moved == least
    figures: dict[str, Any] = {
        "fps": fps,
        "links_p50_us": round(links, 1),
        "up_bytes": moved[0],
        "down_bytes": moved[1],
        "least_up_bytes": least[0],
        "least_down_bytes": least[1],
        "report": report.to_dict(),
    }
    return Outcome(text, reached, figures)


@cache
def _run(conditions: Conditions, fps: int) -> Report:
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
    kind, options = out or ("encoder", {"url": str(conditions.folder / f"styled-{fps}.mp4")})
    model = WITH_CONTROL.under(conditions)
    seconds = _FEW_SECONDS if conditions.fake else _SECONDS
    clip = conditions.folder / f"clip-{fps}.mp4"
    if not clip.exists():
        slow = 1 if conditions.fake else _SLOW
        make_clip(clip, side=model.side, fps=fps, slow=slow, frames=round(fps * seconds))
    style: dict[str, Any] = {"model": model.name, "control": "random", "prompt": PROMPT}
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
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23"}
        stream.time_base = tick = Fraction(1, 2 * fps)  # of which the gap is a multiple
        for number in range(slow + frames):
            turn = number * 0.1
            waves = [
                np.sin(9 * x + turn),
                np.sin(7 * y - turn),
                np.sin(5 * (x + y) + 2 * turn),
            ]
            levels = (115 + 100 * np.stack(waves, axis=-1)).astype(np.uint8) + noise
            picture = av.VideoFrame.from_ndarray(levels, format="rgb24")
            picture.time_base = tick
            begun = min(number, slow)
            picture.pts = round(begun * _GAP / tick) + 2 * (number - begun)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f}"
