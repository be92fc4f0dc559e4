"""Processes that die, and runs that are interrupted: the stream goes on, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from e2e_support import (
    ROOT,
    STREAMER,
    alive,
    frames_of,
    make_clip,
    read_report,
    wait_for,
    workers_of,
)

from streamer.runtime.remote import Remote, RunningGraph

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "clip.mp4"
    make_clip(path, frames=600)
    return path


def live(start: Start, clip: Path, tmp_path: Path, *more: object) -> subprocess.Popen[str]:
    """The quickstart graph on a file that plays at its own speed, as a camera does."""
    out, report = tmp_path / "out.mkv", tmp_path / "r.json"
    return start(
        "run",
        ROOT / "configs/quickstart.yaml",
        *("--set", f"source.url={clip}", "--set", "source.realtime=true"),
        *("--set", f"sink.url={out}", "--report", report, *more),
    )


def test_a_terminal_that_is_stopped_stops_neither_the_run_nor_its_care(
    long_clip: Path, tmp_path: Path, private_folder: Path
) -> None:
    terminal, end = os.openpty()
    run = subprocess.Popen(
        [
            *(STREAMER, "run", ROOT / "configs/quickstart.yaml", "--report", tmp_path / "r.json"),
            *("--set", f"source.url={long_clip}", "--set", "source.realtime=true"),
            *("--set", "source.loop=true", "--set", f"sink.url={tmp_path / 'out.mkv'}"),
        ],
        stdin=subprocess.DEVNULL,
        stderr=end,
        start_new_session=True,
    )
    try:
        wait_for(growing(tmp_path / "out.mkv", 2000))
        termios.tcflow(end, termios.TCOOFF)  # Ctrl-S
        (folder,) = private_folder.glob("streamer-*")
        with Remote(RunningGraph("quickstart", run.pid, folder)) as remote:
            # The second is seen long after the display was to be drawn.
            for victim in ("source", "prepare"):
                os.kill(workers_of(run.pid)[victim], signal.SIGKILL)
                wait_for(lambda name=victim: remote.report()["nodes"][name]["restarts"] == 1)
        termios.tcflow(end, termios.TCOON)
        os.set_blocking(terminal, False)
        run.send_signal(signal.SIGINT)
        wait_for(lambda: drained(terminal) or run.poll() is not None)
        assert run.returncode == 0
    finally:
        run.kill()
        run.wait()
        os.close(end)
        os.close(terminal)
    nodes = read_report(tmp_path / "r.json")["nodes"]
    assert [nodes[name]["restarts"] for name in ("source", "prepare")] == [1, 1]


def drained(terminal: int) -> bool:
    """Reads what a terminal shows; False."""
    with contextlib.suppress(BlockingIOError):
        os.read(terminal, 65536)
    return False


def growing(path: Path, beyond: int = 0) -> Callable[[], bool]:
    return lambda: path.exists() and path.stat().st_size > beyond


def readable(path: Path) -> list[object]:
    """The pictures of a recording as far as it has got; none before its first fragment."""
    try:
        return list(frames_of(path))
    except (FileNotFoundError, av.error.InvalidDataError):
        return []


@pytest.mark.parametrize("victim", ["source", "prepare", "style", "sink"])
def test_a_killed_worker_does_not_end_a_live_stream(
    started: Start, long_clip: Path, tmp_path: Path, private_folder: Path, victim: str
) -> None:
    run = live(started, long_clip, tmp_path, "--set", "source.loop=true")
    wait_for(growing(tmp_path / "out.mkv", 2000))
    workers = workers_of(run.pid)
    (folder,) = private_folder.glob("streamer-*")
    with Remote(RunningGraph("quickstart", run.pid, folder)) as remote:
        os.kill(workers[victim], signal.SIGKILL)
        wait_for(lambda: remote.report()["nodes"][victim]["restarts"] == 1)
        before = remote.report()["sinks"]["sink"]["delivered"]
        wait_for(lambda: remote.report()["sinks"]["sink"]["delivered"] >= before + 25)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    assert f"{victim} was killed by SIGKILL; starting it again" in output
    report = read_report(tmp_path / "r.json")
    assert report["nodes"][victim]["last_failure"] == f"{victim} was killed by SIGKILL"
    # Whole seconds of the stream came after the kill, whose file parts both play.
    parts = sorted(tmp_path.glob("out*.mkv"))
    assert len(parts) == (2 if victim == "sink" else 1)
    assert all(frames_of(part) for part in parts)
    assert not [pid for pid in workers.values() if alive(pid)]


def test_ctrl_c_finishes_what_is_under_way(started: Start, long_clip: Path, tmp_path: Path) -> None:
    run = started("style", long_clip, "out.mp4", "--report", "r.json")
    wait_for(growing(tmp_path / "out.mp4", 2000))
    workers = workers_of(run.pid)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to all of the group
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    sink = read_report(tmp_path / "r.json")["sinks"]["sink"]
    assert 0 < sink["captured"] < 600
    assert sink["delivered"] == sink["captured"]
    assert len(frames_of(tmp_path / "out.mp4")) == sink["delivered"]
    assert not [pid for pid in workers.values() if alive(pid)]


def test_a_second_ctrl_c_stops_at_once(started: Start, long_clip: Path, tmp_path: Path) -> None:
    run = started("style", long_clip, "out.mp4", "--report", "r.json")
    wait_for(growing(tmp_path / "out.mp4", 2000))
    workers = workers_of(run.pid)
    run.send_signal(signal.SIGTERM)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    read_report(tmp_path / "r.json")
    assert not [pid for pid in workers.values() if alive(pid)]


def test_workers_of_a_killed_supervisor_close_the_file_and_end(
    started: Start, long_clip: Path, tmp_path: Path
) -> None:
    run = live(started, long_clip, tmp_path)
    wait_for(growing(tmp_path / "out.mkv", 2000))
    workers = workers_of(run.pid)
    run.kill()
    run.wait()
    wait_for(lambda: not [pid for pid in workers.values() if alive(pid)])
    assert frames_of(tmp_path / "out.mkv")


def test_a_recording_cut_off_by_sigkill_still_plays(
    started: Start, long_clip: Path, tmp_path: Path, private_folder: Path
) -> None:
    run = started(
        "run",
        ROOT / "configs/quickstart.yaml",
        *("--set", f"source.url={long_clip}", "--set", "source.realtime=true"),
        *("--set", f"sink.url={tmp_path / 'out.mp4'}"),
    )
    wait_for(lambda: len(readable(tmp_path / "out.mp4")) >= 60)
    pids = [run.pid, *workers_of(run.pid).values()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    run.wait()
    wait_for(lambda: not [pid for pid in pids if alive(pid)])
    subprocess.run([STREAMER, "status"], check=True)  # which removes what nobody was left to
    assert list(private_folder.iterdir()) == []
    assert len(readable(tmp_path / "out.mp4")) >= 60
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
