"""Bad input: one clear message that names the node and the reason, and the right exit status."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e_support import ROOT, STREAMER, frames_of, nodes_of, read_report, wait_for

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICKSTART = ROOT / "configs/quickstart.yaml"


def one_message(done: subprocess.CompletedProcess[str], status: int, *parts: str) -> str:
    """The only error message of a failed command; asserts its status and what it says."""
    assert done.returncode == status, done.stderr
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr
    return errors[0]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (None, "does not exist"),
        ("folder", "folder"),
        (b"", "empty"),
        (b"This is a letter to my aunt.\n" * 40, "in.mp4"),
    ],
    ids=["missing", "folder", "empty", "text"],
)
def test_sources_that_are_no_video(streamer: Run, tmp_path: Path, make: object, said: str) -> None:
    path = tmp_path / "in.mp4"
    if make == "folder":
        path.mkdir()
    elif isinstance(make, bytes):
        path.write_bytes(make)
    error = one_message(streamer("style", path, "out.mp4"), 1, "source:", "in.mp4")
    assert said in error.lower() or said in error


def test_a_truncated_file_plays_up_to_its_end(streamer: Run, clip: Path, tmp_path: Path) -> None:
    # Frames first, index last: an mp4 that was cut off has no index and cannot be read at all.
    part = tmp_path / "cut.mkv"
    remux = ["ffmpeg", "-v", "error", "-i", str(clip), "-c", "copy", str(tmp_path / "whole.mkv")]
    subprocess.run(remux, check=True, stdin=subprocess.DEVNULL)
    whole = (tmp_path / "whole.mkv").read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    done = streamer("style", part, "out.mp4")
    assert done.returncode == 0, done.stderr
    assert "cut off" in done.stderr
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    one_message(streamer("style", cut, "out2.mp4"), 1, "source:", "cut.mp4")


def copying_graph(folder: Path, clip: Path, *, size: str = "256x256", **sink: object) -> Path:
    """A graph that only brings a clip to a size."""
    nodes = {
        "source": {"uses": "decoder", "with": {"url": str(clip)}},
        "prepare": {"uses": "preprocess", "from": "source", "with": {"size": size}},
        "sink": {"uses": "encoder", "from": "prepare", "with": sink},
    }
    path = folder / "copying.json"
    path.write_text(json.dumps({"version": 1, "nodes": nodes}))
    return path


def camera_graph(folder: Path, **params: object) -> Path:
    """A graph whose camera is at a port at which nothing listens."""
    url = "rtsp://anna:secret@127.0.0.1:9/camera"
    source = {"uses": "decoder", "with": {"url": url, **params}}
    sink = {"uses": "encoder", "from": "camera", "with": {"url": "out.mp4"}}
    graph = {"version": 1, "name": "waiting", "nodes": {"camera": source, "out": sink}}
    path = folder / "waiting.json"
    path.write_text(json.dumps(graph))
    return path


def test_a_camera_that_is_not_there_is_given_up_if_asked(streamer: Run, tmp_path: Path) -> None:
    done = streamer("run", camera_graph(tmp_path, give_up=1))
    assert done.returncode == 1
    assert "nothing listens at 127.0.0.1 port 9 (connection refused); given up after 1 s" in (
        done.stderr
    )
    assert "secret" not in done.stderr


def test_a_camera_that_is_not_there_is_waited_for(
    started: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    run = started("run", camera_graph(tmp_path), "--report", "r.json")
    wait_for(lambda: nodes_of(run.pid).get("camera", {}).get("status") == "connecting")
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    assert "secret" not in output
    assert json.loads((tmp_path / "r.json").read_text())["nodes"]["camera"]["restarts"] == 0


@pytest.mark.parametrize(
    ("output", "status", "who", "said"),
    [
        ("nowhere/out.mp4", 1, "sink", "nowhere"),  # there when it is opened, perhaps
        ("folder", 2, "OUTPUT", "folder"),
        ("out.xyz", 2, "OUTPUT", "xyz"),
    ],
)
def test_outputs_that_cannot_be(
    streamer: Run, clip: Path, tmp_path: Path, output: str, status: int, who: str, said: str
) -> None:
    (tmp_path / "folder").mkdir()
    one_message(streamer("style", clip, output), status, f"{who}:", said)


@pytest.mark.parametrize("output", ["in.mp4", "file:in.mp4", "./x/../in.mp4", "hard.mp4"])
def test_the_source_itself_is_never_written(
    streamer: Run, clip: Path, tmp_path: Path, output: str
) -> None:
    source = tmp_path / "in.mp4"
    shutil.copy(clip, source)
    (tmp_path / "x").mkdir()
    (tmp_path / "hard.mp4").hardlink_to(source)
    done = streamer("style", "in.mp4", output)
    one_message(done, 2, "OUTPUT", "the file that source reads")
    assert source.read_bytes() == clip.read_bytes()


def test_a_report_replaces_no_video_and_no_graph(streamer: Run, clip: Path, tmp_path: Path) -> None:
    shutil.copy(clip, tmp_path / "in.mp4")
    (tmp_path / "g.yaml").write_text(QUICKSTART.read_text())
    for report, said in (("in.mp4", "source"), ("out.mp4", "sink")):
        done = streamer("style", "in.mp4", "out.mp4", "--report", report)
        one_message(done, 2, "--report", said)
    done = streamer("run", "g.yaml", "--report", "g.yaml")
    one_message(done, 2, "--report", "graph file")
    assert (tmp_path / "in.mp4").read_bytes() == clip.read_bytes()


@pytest.mark.parametrize("log", ["/dev/full", "| head -1"])
def test_a_log_that_nobody_takes_does_not_end_the_run(clip: Path, tmp_path: Path, log: str) -> None:
    ending = f"2>{log}" if log.startswith("/") else f"2>&1 {log}"
    graph = copying_graph(tmp_path, clip, url="out.mp4")
    command = f"set -o pipefail; '{STREAMER}' run '{graph}' --report r.json {ending}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert read_report(tmp_path / "r.json")["sinks"]["sink"]["delivered"] == 90
    assert len(frames_of(tmp_path / "out.mp4")) == 90


def test_an_output_that_refuses_is_tried_again_and_then_given_up(
    streamer: Run, clip: Path, tmp_path: Path
) -> None:
    graph = tmp_path / "refused.yaml"
    graph.write_text(
        "version: 1\n"
        "nodes:\n"
        f"  source: {{uses: decoder, with: {{url: '{clip}'}}}}\n"
        "  sink: {uses: encoder, from: source, with: {url: 'tcp://127.0.0.1:9', give_up: 5}}\n"
    )
    done = streamer("run", graph, "--report", "r.json")
    assert done.returncode == 1, done.stderr
    assert "refused" in done.stderr
    report = read_report(tmp_path / "r.json")
    assert report["nodes"]["sink"]["restarts"] == 0
    assert "gave up after 5 s (give_up)" in report["errors"][0]


def test_a_full_disk(streamer: Run, clip: Path, tmp_path: Path) -> None:
    graph = copying_graph(tmp_path, clip, size="384x384", url="out.mkv", codec="ffv1")
    often = ("--set", "source.loop=true", "--frames", 900)
    done = streamer("run", graph, *often, preexec_fn=_no_large_files)
    error = one_message(done, 1, "sink:", "out.mkv")
    assert "large" in error
    assert frames_of(tmp_path / "out.mkv")  # what fitted plays


def _no_large_files() -> None:
    # Writing beyond this fails as on a full disk; slabs of 384x384 fit below.
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000_000, 6_000_000))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("prepare.size=0x0", "0x0"),
        ("prepare.size=100000x100000", "100000x100000"),
        ("source.fps=-1", "-1"),
        ("style.prompt=crayon", "pencil"),
        ("style.promt=ink", "prompt"),
        ("style.seed=abc", "abc"),
        ("stile.prompt=ink", "style"),
        ("sink.codec=h265000", "h265000"),
    ],
)
def test_parameters_that_are_wrong(streamer: Run, tmp_path: Path, setting: str, said: str) -> None:
    done = streamer(
        "run", QUICKSTART, "--set", f"sink.url={tmp_path / 'out.mp4'}", "--set", setting
    )
    one_message(done, 2, said)


def test_all_mistakes_of_a_graph_come_at_once(streamer: Run, tmp_path: Path) -> None:
    graph = tmp_path / "bad.yaml"
    graph.write_text(
        "version: 1\n"
        "nodes:\n"
        "  a: {uses: decoder, with: {url: 'demo:', fsp: 3}}\n"
        "  b: {uses: preproces, from: a}\n"
        "  c: {uses: preprocess, from: d}\n"
        "  d: {uses: preprocess, from: c}\n"
        "  'e f': {uses: encoder, from: b, with: {url: out.mp4}}\n"
    )
    done = streamer("check", graph)
    assert done.returncode == 2
    for place in ("bad.yaml:3:", "bad.yaml:4:", "bad.yaml:5:", "bad.yaml:7:"):
        assert place in done.stderr, done.stderr
    assert "did you mean" in done.stderr.lower()
    assert "cycle" in done.stderr.lower()


def test_a_yaml_bomb_is_refused(streamer: Run, tmp_path: Path) -> None:
    lines = ["version: 1", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    graph = tmp_path / "bomb.yaml"
    graph.write_text("\n".join(lines))
    one_message(streamer("check", graph), 2, "bomb.yaml")


def test_one_bad_output_closes_the_others_properly(
    streamer: Run, clip: Path, tmp_path: Path
) -> None:
    graph = tmp_path / "two.yaml"
    graph.write_text(
        "version: 1\n"
        "nodes:\n"
        f"  source: {{uses: decoder, with: {{url: '{clip}'}}}}\n"
        "  good: {uses: encoder, from: source, with: {url: good.mp4}}\n"
        "  bad: {uses: encoder, from: source, with: {url: bad.mkv, codec: rawvideo}}\n"
    )
    done = streamer("run", graph, "--report", "r.json", preexec_fn=_no_large_files)
    one_message(done, 1, "bad:", "bad.mkv")
    report = read_report(tmp_path / "r.json")
    assert report["exit_status"] == 1
    good = report["sinks"]["good"]
    assert len(frames_of(tmp_path / "good.mp4")) == good["delivered"] > 0
