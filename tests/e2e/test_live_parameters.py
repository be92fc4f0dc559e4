"""`streamer get` and `set` on a graph that runs."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from e2e_support import ROOT, frames_of, read_report, wait_for

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


def endless(
    started: Start, clip: Path, folder: Path, *, prompt: str
) -> tuple[subprocess.Popen[str], Path]:
    """The quickstart graph on a clip that goes round and round; the process and its output."""
    out = folder / "out.mkv"
    run = started(
        "run",
        ROOT / "configs/quickstart.yaml",
        *("--set", f"source.url={clip}", "--set", "source.loop=true"),
        *("--set", "source.realtime=true", "--set", f"style.prompt={prompt}"),
        *("--set", "style.loading=hold"),  # the first picture is styled, too
        *("--set", f"sink.url={out}", "--report", "r.json"),
    )
    return run, out


def test_another_prompt_shows_at_once(
    streamer: Run, started: Start, clip: Path, tmp_path: Path
) -> None:
    run, out = endless(started, clip, tmp_path, prompt="comic")
    wait_for(lambda: out.exists() and out.stat().st_size > 20_000)
    which = ("--run", run.pid)  # another may be running on the same machine
    assert streamer("get", "style.prompt", *which).stdout == "comic\n"
    done = streamer("set", "style.prompt=ink", *which)
    assert done.returncode == 0, done.stderr
    assert streamer("get", "style.prompt", *which).stdout == "ink\n"
    size = out.stat().st_size
    wait_for(lambda: out.stat().st_size > size + 20_000)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    report = read_report(tmp_path / "r.json")
    (change,) = report["changes"]
    assert change["path"] == "style.prompt"
    assert change["first_frame_ms"]["sink"] > 0
    colour = [float(np.ptp(picture.astype(int), axis=2).mean()) for _, picture in frames_of(out)]
    # Colour, then, from one picture to the next and for good, ink.
    inked = [value < 0.4 * colour[0] for value in colour]
    assert not inked[0]
    assert inked[-1]
    assert inked == sorted(inked)


def test_changes_that_cannot_be_are_refused_in_words(
    streamer: Run, started: Start, clip: Path, tmp_path: Path
) -> None:
    run, out = endless(started, clip, tmp_path, prompt="ink")
    wait_for(lambda: out.exists() and out.stat().st_size > 2_000)
    for assignment, said in (
        ("style.prompt=crayon", "pencil"),
        ("style.conditioning_scale=3", "at most 2"),
        ("style.threads=1", "cannot change while the graph runs"),
        ("style.prompt", "NODE.KEY=VALUE"),
    ):
        done = streamer("set", assignment, "--run", run.pid)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
    assert streamer("get", "style.prompt", "--run", run.pid).stdout == "ink\n"
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    assert read_report(tmp_path / "r.json")["changes"] == []
