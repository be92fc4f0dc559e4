"""`streamer bench viewers`: what many viewers do to the pipeline that they watch."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import typer

CASES: Final = {
    "nobody": (0, 0, 0),
    "1 MPEG-TS": (1, 0, 0),
    "8 HTTP, 8 WebRTC": (4, 4, 8),
    "16 WebRTC": (0, 0, 16),
}
"""viewers by MPEG-TS, MJPEG and WebRTC"""


@dataclass(frozen=True, slots=True)
class Row:
    """One case.

    Attributes:
        viewers: who watched.
        fps: pictures a second that reached the web output.
        age_ms: from capture to the web output, p50 and p95.
        process_ms: median time that the output took for a picture, encoding included.
        dropped: pictures that did not reach it.
        seen_fps: pictures a second that the worst and the median viewer got; None for nobody.
        cpu: of one core, used by all processes of the pipeline.
        viewers_cpu: of one core, used by the viewers themselves.
    """

    viewers: str
    fps: float
    age_ms: tuple[float, float]
    process_ms: float
    dropped: int
    seen_fps: tuple[float, float] | None
    cpu: float
    viewers_cpu: float


def measure(
    *,
    video: str = "demo:",
    size: str = "512x512",
    fps: float = 30.0,
    seconds: float = 20.0,
    model: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Measures every case of `CASES`, one after the other, each in a run of its own.

    Args:
        video: what to show, as the decoder's url; it is played in a loop.
        size: of pictures, WIDTHxHEIGHT.
        fps: pictures a second.
        seconds: of each run.
        model: of an sdxs node before the output; None for none.
        progress: told what is going on.

    Raises:
        RunError: a run or its viewers failed.
    """
    rows = []
    for name, kinds in CASES.items():
        progress(name)
        rows.append(_run(name, kinds, _graph(video, size, fps, model), seconds))
    return rows


def _graph(video: str, size: str, fps: float, model: str | None) -> dict[str, Any]:
    last = "prepare" if model is None else "style"
    nodes: dict[str, Any] = {
        "source": {
            "uses": "decoder",
            "with": {"url": video, "loop": True, "realtime": True, "fps": fps, "audio": False},
        },
        "prepare": {"uses": "preprocess", "from": "source", "with": {"size": size, "fit": "cover"}},
        "page": {"uses": "web", "from": last, "with": {"listen": f"127.0.0.1:{_free_port()}"}},
    }
    if model is not None:
        nodes["style"] = {"uses": "sdxs", "from": "prepare", "with": {"model": model}}
    return {"name": "bench-viewers", "nodes": nodes}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(name: str, kinds: tuple[int, int, int], graph: dict[str, Any], seconds: float) -> Row:
    import streamer

    port = graph["nodes"]["page"]["with"]["listen"].rpartition(":")[2]
    before = _used()
    viewers = subprocess.Popen(
        [sys.executable, "-m", "nodes.web.bench_viewers", port, *map(str, kinds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        report = streamer.run(streamer.Graph.from_dict(graph), duration=seconds)
        used = _used() - before
        said, complaints = viewers.communicate("", timeout=60)
    finally:
        if viewers.poll() is None:
            viewers.kill()
            viewers.communicate()
    if viewers.returncode:
        raise streamer.RunError(f"the viewers of the case {name!r} failed: {complaints[-500:]}")
    seen = json.loads(said)
    if any(not viewer["pictures"] for viewer in seen["viewers"]):
        raise streamer.RunError(
            f"a viewer of the case {name!r} saw nothing: {'; '.join(seen['errors']) or 'no error'}"
        )
    sink = report.sinks["page"]
    rates = sorted(viewer["fps"] for viewer in seen["viewers"])
    return Row(
        viewers=name,
        fps=sink.fps,
        age_ms=(sink.age_ms["p50"] or 0.0, sink.age_ms["p95"] or 0.0),
        process_ms=report.nodes["page"].process_ms["p50"] or 0.0,
        dropped=sum(sink.dropped.values()),
        seen_fps=(rates[0], rates[len(rates) // 2]) if rates else None,
        cpu=round(used / seconds, 2),
        viewers_cpu=round(seen["cpu_s"] / seconds, 2),
    )


def _used() -> float:
    """Seconds of CPU of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command(
    video: Annotated[str, typer.Option(help="What to show, as the decoder's url.")] = "demo:",
    size: Annotated[str, typer.Option(metavar="WxH", help="Of pictures.")] = "512x512",
    fps: Annotated[float, typer.Option(min=1, max=240, help="Pictures a second.")] = 30.0,
    seconds: Annotated[float, typer.Option(min=5, max=600, help="Of each run.")] = 20.0,
    model: Annotated[
        str | None, typer.Option(help="Of an sdxs node before the output; none by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """A pipeline's own rate and age while nobody, one and 16 watch, on this machine."""

    def say(text: str) -> None:
        if not as_json:
            typer.echo(f"measuring: {text}", err=True)

    rows = measure(video=video, size=size, fps=fps, seconds=seconds, model=model, progress=say)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{size} at {fps:g} frames/s", box=None, title_justify="left")
    heads = ("viewers", "frames/s", "age p50", "p95 ms", "output ms", "dropped")
    for head in (*heads, "seen/s", "cores", "theirs"):
        table.add_column(head, justify="left" if head == "viewers" else "right")
    for row in rows:
        table.add_row(
            row.viewers,
            f"{row.fps:.1f}",
            f"{row.age_ms[0]:.1f}",
            f"{row.age_ms[1]:.1f}",
            f"{row.process_ms:.1f}",
            str(row.dropped),
            "" if row.seen_fps is None else f"{row.seen_fps[0]:.1f}",
            f"{row.cpu:.2f}",
            f"{row.viewers_cpu:.2f}",
        )
    Console().print(table)
