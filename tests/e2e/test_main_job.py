"""The main job: a video in, a restyled video out, and a report that adds up."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from e2e_support import ROOT, frames_of, read_report

Run = Callable[..., subprocess.CompletedProcess[str]]


def saturation(picture: np.ndarray) -> float:
    """How colourful a picture is, 0 to 255: the mean spread of its channels."""
    return float((picture.max(axis=2).astype(int) - picture.min(axis=2)).mean())


def test_the_quickstart_graph_restyles_any_video(streamer: Run, clip: Path, tmp_path: Path) -> None:
    out, report_file = tmp_path / "out.mp4", tmp_path / "r.json"
    done = streamer(
        "run",
        ROOT / "configs/quickstart.yaml",
        *("--set", f"source.url={clip}", "--set", f"sink.url={out}", "--report", report_file),
    )
    assert done.returncode == 0, done.stderr
    assert "90 of 90 frames" in done.stderr
    report = read_report(report_file)
    sink = report["sinks"]["sink"]
    assert (sink["captured"], sink["delivered"], sink["dropped"]) == (90, 90, {})
    assert set(report["nodes"]) == {"source", "prepare", "style", "sink"}
    assert report["links"]["source->prepare"]["kind"] == "memfd"
    assert all(node["copies_per_frame"] == 0 for node in report["nodes"].values())
    inside, outside = frames_of(clip), frames_of(out)
    assert len(outside) == len(inside)
    assert [time for time, _ in outside] == pytest.approx([time for time, _ in inside], abs=1e-4)
    # The quickstart's style is ink: hardly any colour is left, but light and dark are.
    assert saturation(outside[45][1]) < 0.3 * saturation(inside[45][1])
    assert outside[45][1].std() > 20


def test_style_does_the_same_without_a_graph_file_and_keeps_duration_and_sound(
    streamer: Run, clip: Path, tmp_path: Path
) -> None:
    done = streamer("style", clip, "out.mp4", "--prompt", "comic", "--report", "r.json")
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "r.json")
    assert report["sinks"]["sink"]["delivered"] == 90
    pictures = frames_of(tmp_path / "out.mp4")
    assert len(pictures) == 90
    assert pictures[0][1].shape == (256, 256, 3)
    with av.open(str(clip)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        (video,) = after.streams.video
        (audio,) = after.streams.audio
        seconds = float(video.duration * video.time_base)
        assert seconds == pytest.approx(3.0, abs=1 / 30 + 1e-3)
        assert audio.codec_context.name == "aac"
        kept = [bytes(packet) for packet in after.demux(audio) if packet.size]
        sent = [bytes(packet) for packet in before.demux(audio=0) if packet.size]
        assert kept == sent  # passed on as they were


def test_frames_ends_early_and_closes_the_file(streamer: Run, clip: Path, tmp_path: Path) -> None:
    done = streamer("style", clip, "out.mkv", "--frames", 20, "--report", "r.json")
    assert done.returncode == 0, done.stderr
    assert read_report(tmp_path / "r.json")["sinks"]["sink"]["delivered"] == 20
    assert len(frames_of(tmp_path / "out.mkv")) == 20


def test_the_demo_clip_needs_no_file(streamer: Run, tmp_path: Path) -> None:
    done = streamer("style", "demo:", "out.mp4", "-p", "pencil", "--frames", 30, "-q")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(frames_of(tmp_path / "out.mp4")) == 30


def test_three_styles_side_by_side(streamer: Run, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = streamer(
        "run",
        ROOT / "configs/three-styles.yaml",
        *("--set", f"source.url={clip}", "--set", f"sink.url={tmp_path / 'out.mp4'}"),
        *("--report", "r.json", "--frames", 30),
    )
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "r.json")
    (sink,) = report["sinks"].values()
    assert sink["delivered"] == 30
    picture = frames_of(tmp_path / "out.mp4")[15][1]
    height, width = picture.shape[:2]
    assert width == pytest.approx(3 * height, rel=0.1)
    left, middle, right = (picture[:, i * width // 3 : (i + 1) * width // 3] for i in range(3))
    for one, other in ((left, middle), (middle, right), (left, right)):
        assert np.abs(one.astype(int) - other).mean() > 4
