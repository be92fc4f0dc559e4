"""The pipeline without a model against the ffmpeg command: the same decode, scale and encode.

Both read the same file, scale it to half its sides and encode it with x264 at the same preset and
quality, one after the other in the same run, on the same cores.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from streamer.errors import ParameterError, RunError
from streamer.graph import Graph
from streamer.runtime import run

PRESET: Final = "veryfast"
CRF: Final = 23


@dataclass(frozen=True, slots=True)
class Result:
    """Frames a second of both, and where the pipeline's time goes.

    Attributes:
        frames: of the file.
        streamer_fps: wall time from the first frame to the last one delivered.
        ffmpeg_fps: wall time of the command, less that of a run over one frame.
        ratio_to_ffmpeg: the first over the second.
        process_ms: median time of each node for a frame.
        hop_us: median hop of each link.
    """

    frames: int
    streamer_fps: float
    ffmpeg_fps: float
    ratio_to_ffmpeg: float
    process_ms: dict[str, float | None]
    hop_us: dict[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        return asdict(self)


def measure(
    *,
    video: Path | None = None,
    seconds: float = 20.0,
    progress: Callable[[str], None] = lambda text: None,
) -> Result:
    """Measures both.

    Args:
        video: H.264 file; one of 1280x720 at 30 frames a second is made by default.
        seconds: length of the file that is made.
        progress: told what is going on.

    Raises:
        ParameterError: there is no ffmpeg command to compare with.
        RunError: one of the two failed.
    """
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise ParameterError("bench pipeline needs the ffmpeg command (on Debian: ffmpeg)")
    with tempfile.TemporaryDirectory(prefix="streamer-bench-") as folder:
        if video is None:
            progress("making a clip of 1280x720")
            video = Path(folder) / "in.mp4"
            _make_clip(ffmpeg, video, seconds)
        width, height, frames = _probe(video)
        size = (width // 4 * 2, height // 4 * 2)
        progress("ffmpeg")
        out = Path(folder) / "ffmpeg.mp4"
        start_up = _run_ffmpeg(ffmpeg, video, size, out, frames=1)
        taken = _run_ffmpeg(ffmpeg, video, size, out) - start_up
        progress("streamer")
        report = run(_graph(video, size, Path(folder) / "streamer.mp4"))
    fps = report.sinks["sink"].fps
    return Result(
        frames=frames,
        streamer_fps=fps,
        ffmpeg_fps=round(frames / taken, 1),
        ratio_to_ffmpeg=round(fps * taken / frames, 3),
        process_ms={name: node.process_ms["p50"] for name, node in report.nodes.items()},
        hop_us={key: link.hop_us["p50"] for key, link in report.links.items()},
    )


def _graph(video: Path, size: tuple[int, int], out: Path) -> Graph:
    return Graph.from_dict(
        {
            "name": "bench-pipeline",
            "nodes": {
                "source": {"uses": "decoder", "with": {"url": str(video), "audio": False}},
                "prepare": {
                    "uses": "preprocess",
                    "from": "source",
                    "with": {
                        "size": f"{size[0]}x{size[1]}",
                        "fit": "stretch",
                        "format": "yuv420p",
                    },
                },
                "sink": {
                    "uses": "encoder",
                    "from": "prepare",
                    "with": {
                        "url": str(out),
                        "codec": "libx264",
                        "preset": PRESET,
                        "quality": CRF,
                    },
                },
            },
        }
    )


def _make_clip(ffmpeg: str, path: Path, seconds: float) -> None:
    # Moving texture with some noise: neither trivial nor impossible to code.
    source = f"mandelbrot=size=1280x720:rate=30,noise=alls=8:allf=t,trim=duration={seconds}"
    command = [ffmpeg, "-v", "error", "-f", "lavfi", "-i", source, "-c:v", "libx264"]
    command += ["-preset", "veryfast", "-crf", "23", "-pix_fmt", "yuv420p"]
    _call([*command, str(path)])


def _run_ffmpeg(
    ffmpeg: str, video: Path, size: tuple[int, int], out: Path, *, frames: int | None = None
) -> float:
    command = [ffmpeg, "-v", "error", "-y", "-i", str(video), "-an"]
    command += ["-vf", f"scale={size[0]}:{size[1]}", "-c:v", "libx264"]
    command += ["-preset", PRESET, "-crf", str(CRF), "-pix_fmt", "yuv420p"]
    if frames is not None:
        command += ["-frames:v", str(frames)]
    begin = time.monotonic()
    _call([*command, str(out)])
    return time.monotonic() - begin


def _call(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"ffmpeg failed: {done.stderr.strip()[-300:]}")


def _probe(video: Path) -> tuple[int, int, int]:
    import av

    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        frames = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
        return stream.width, stream.height, frames
