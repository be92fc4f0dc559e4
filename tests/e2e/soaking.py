"""Hours of a live show in one go: `scripts/soak --minutes 60`, and what a run of it must keep.

A real RTSP camera that is killed and comes back, the bundled model, one output over UDP that a
player receives, and one for viewers that come and go; the prompt changes all the while. Memory,
descriptors and the true age of the received pictures are sampled; none of them may grow.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import av
import stamping
from e2e_support import STREAMER, free_port, read_report, wait_for, workers_of
from rtsp_rig import CAMERA, PYTHON

PROMPTS: Final = ("comic", "ink", "oil", "pencil", "neon", "ink:0.5 comic:0.5")

_LEVEL: Final = 1200.0
"""seconds of a settled run after which memory must be level"""
_GRAPH: Final = """
version: 1
name: soak
nodes:
  camera: {{uses: decoder, with: {{url: "rtsp://127.0.0.1:{rtsp}/live", timeout: 3}}}}
  crop: {{uses: preprocess, from: camera, with: {{size: 256x256, fit: cover}}}}
  style: {{uses: sdxs, from: crop, with: {{prompt: comic}}}}
  stamp: {{uses: "stamping:Stamp", from: style}}
  udp: {{uses: encoder, from: stamp, with: {{url: "udp://127.0.0.1:{udp}"}}}}
  page: {{uses: web, from: stamp, with: {{listen: "127.0.0.1:{web}"}}}}
"""


@dataclass(slots=True)
class Sample:
    """One look at the run.

    Attributes:
        at: seconds since the first one.
        rss: resident MiB by process name.
        descriptors: open descriptors by process name.
        pids: process ids by process name.
        age_ms: median true age of the pictures received since the last look; None without any.
        received: pictures received in all.
    """

    at: float
    rss: dict[str, float]
    descriptors: dict[str, int]
    pids: dict[str, int]
    age_ms: float | None
    received: int


@dataclass(slots=True)
class Course:
    """What a soak has seen.

    Attributes:
        samples: in order.
        report: of the run, checked to add up.
        camera_restarts: how often the camera was killed and started again.
        changes: how often the prompt was changed.
        viewers: how many viewers came and went.
        log: what the run said.
    """

    samples: list[Sample] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    camera_restarts: int = 0
    changes: int = 0
    viewers: int = 0
    log: str = ""


def soak(
    folder: Path,
    *,
    seconds: float,
    camera_every: float,
    change_every: float = 7.0,
    viewer_every: float = 5.0,
    look_every: float = 2.0,
    say: Any = lambda text: None,
) -> Course:
    """Runs the show for a while and ends it properly.

    Args:
        folder: an empty one.
        seconds: how long, from the first received picture.
        camera_every: seconds between two kills of the camera.
        change_every: seconds between two changes of the prompt.
        viewer_every: seconds between two viewers' coming; each stays for a few.
        look_every: seconds between two samples.
        say: told of the progress.
    """
    ports = {"rtsp": free_port(), "udp": free_port(kind="udp"), "web": free_port()}
    graph, report = folder / "soak.yaml", folder / "report.json"
    graph.write_text(_GRAPH.format(**ports))
    course, player = Course(), Player(ports["udp"])
    camera = _start_camera(ports["rtsp"])
    with (folder / "log").open("w") as log:
        run = subprocess.Popen(
            [STREAMER, "run", graph, "--report", report],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: player.received or run.poll() is not None, seconds=120)
        prompts = itertools.cycle(PROMPTS)
        began = time.monotonic()
        due = {"camera": camera_every, "change": change_every, "viewer": viewer_every, "look": 0.0}
        while (now := time.monotonic() - began) < seconds:
            if run.poll() is not None:
                raise AssertionError(f"the run ended: {(folder / 'log').read_text()[-4000:]}")
            what = min(due, key=lambda name: due[name])
            if (left := due[what] - now) > 0:
                time.sleep(min(left, 0.5))
                continue
            match what:
                case "camera":
                    camera.kill()
                    camera.communicate()
                    camera = _start_camera(ports["rtsp"])
                    course.camera_restarts += 1
                    due[what] = now + camera_every
                case "change":
                    _change_prompt(run.pid, next(prompts), folder)
                    course.changes += 1
                    due[what] += change_every
                case "viewer":
                    kind = ("stream.mjpeg", "stream.ts")[course.viewers % 2]
                    _view(ports["web"], kind, stays=viewer_every * 0.8)
                    course.viewers += 1
                    due[what] += viewer_every
                case _:
                    course.samples.append(_look(run.pid, now, player))
                    due[what] = now + look_every
                    say(_line(course.samples[-1], seconds))
        run.send_signal(signal.SIGINT)
        run.wait(60)
    finally:
        if run.poll() is None:
            run.kill()
            run.wait()
        camera.kill()
        camera.communicate()
        player.close()
    course.report = read_report(report)
    course.log = (folder / "log").read_text()
    return course


def growth(values: Sequence[float], times: Sequence[float]) -> float:
    """By how much a series has grown from its first to its last time: Theil and Sen's slope.

    The median of the slopes between all pairs (Sen 1968, doi:10.1080/01621459.1968.10480934) is
    not moved by single peaks. Of long series, pairs of every n-th value are taken.
    """
    step = max(1, len(values) // 300)
    points = list(zip(times, values, strict=True))[::step]
    slopes = [(b - a) / (t - s) for (s, a), (t, b) in itertools.combinations(points, 2) if t > s]
    return statistics.median(slopes) * (times[-1] - times[0]) if slopes else 0.0


def complaints(course: Course) -> list[str]:
    """What is not flat, or was not done; empty after a good run."""
    found = []
    # Pools, caches and threads that come with the first viewer and the first reconnect.
    settled = course.samples[len(course.samples) // 4 :]
    times = [sample.at for sample in settled]
    # With viewers that come and go an allocator takes some 20 minutes to have all that it needs; a
    # shorter run can tell a leak of some MiB a minute from that, a longer one every leak.
    share = 0.03 if times[-1] - times[0] > _LEVEL else 0.1
    for name in settled[-1].rss:
        pids = {sample.pids.get(name) for sample in settled}
        if len(pids) > 1:
            found.append(f"{name} was started again")
            continue
        rss = [sample.rss[name] for sample in settled]
        grown, allowed = growth(rss, times), 4 + share * statistics.median(rss)
        if grown > allowed:
            found.append(f"memory of {name} grew by {grown:.1f} MiB (allowed {allowed:.1f})")
        descriptors = [float(sample.descriptors[name]) for sample in settled]
        if (grown := growth(descriptors, times)) >= 2:
            found.append(f"descriptors of {name} grew by {grown:.1f}")
    aged = [(s.at, s.age_ms) for s in settled if s.age_ms is not None]
    ages = [age for _, age in aged]
    grown, allowed = growth(ages, [at for at, _ in aged]), 0.25 * statistics.median(ages) + 5
    if grown > allowed:
        found.append(f"age grew by {grown:.1f} ms from {statistics.median(ages):.1f} ms")
    if course.report["exit_status"]:
        found.append(f"the run failed: {course.report['errors']}")
    reconnects = course.report["nodes"]["camera"]["reconnects"]
    if reconnects < course.camera_restarts:
        found.append(f"{course.camera_restarts} restarts of the camera, {reconnects} reconnects")
    return found


class Player:
    """Receives MPEG-TS over UDP in a thread, and reads the stamps of its pictures.

    Args:
        port: on the loopback interface.
    """

    def __init__(self, port: int) -> None:
        self.received = 0
        self._ages: list[int] = []
        self._closing = threading.Event()
        self._port = port
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    def ages(self) -> list[int]:
        """Ages in milliseconds of the pictures that have come since the last call."""
        ages, self._ages = self._ages, []
        return ages

    def close(self) -> None:
        """Stops receiving."""
        self._closing.set()
        self._thread.join()

    def _play(self) -> None:
        url = f"udp://127.0.0.1:{self._port}?fifo_size=5000&overrun_nonfatal=1"
        options = {"fflags": "nobuffer", "flags": "low_delay", "probesize": "32000"}
        while not self._closing.is_set():
            try:
                with av.open(url, format="mpegts", options=options, timeout=2) as container:
                    container.streams.video[0].codec_context.thread_count = 1
                    for frame in container.decode(video=0):
                        self.received += 1
                        stamp = stamping.read(frame.to_ndarray(format="rgb24"))
                        if stamp is not None:
                            self._ages.append(stamping.age_ms(stamp))
                        if self._closing.is_set():
                            return
            except (av.error.FFmpegError, IndexError):
                continue  # nothing sent for a while


def _start_camera(port: int) -> subprocess.Popen[str]:
    def listens() -> subprocess.Popen[str] | None:
        process = subprocess.Popen([PYTHON, CAMERA, str(port)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if process.stdout.readline() == "ready\n":
            return process
        process.communicate()
        return None

    started: subprocess.Popen[str] = wait_for(listens)
    return started


def _change_prompt(pid: int, prompt: str, folder: Path) -> None:
    subprocess.run(
        [STREAMER, "set", f"style.prompt={prompt}", "--run", str(pid)],
        check=True,
        cwd=folder,
        capture_output=True,
        timeout=60,
    )


def _view(port: int, path: str, *, stays: float) -> None:
    """A viewer that reads for a while in a thread and goes without a word."""

    def read() -> None:
        end = time.monotonic() + stays
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                while time.monotonic() < end and connection.recv(65536):
                    pass
        except OSError:
            pass  # it may come while there is nothing to see

    threading.Thread(target=read, daemon=True).start()


def _look(pid: int, now: float, player: Player) -> Sample:
    processes = {"supervisor": pid, **workers_of(pid)}
    ages = player.ages()
    page = os.sysconf("SC_PAGESIZE") / 2**20
    return Sample(
        at=now,
        rss={
            name: int(Path(f"/proc/{process}/statm").read_text().split()[1]) * page
            for name, process in processes.items()
        },
        descriptors={
            name: len(os.listdir(f"/proc/{process}/fd")) for name, process in processes.items()
        },
        pids=processes,
        age_ms=statistics.median(ages) if ages else None,
        received=player.received,
    )


def _line(sample: Sample, seconds: float) -> str:
    memory = ", ".join(f"{name} {rss:.0f}" for name, rss in sample.rss.items())
    age = "-" if sample.age_ms is None else f"{sample.age_ms:.0f}"
    return (
        f"{sample.at:.0f} of {seconds:.0f} s: {sample.received} pictures, age {age} ms, "
        f"MiB: {memory}, descriptors {sum(sample.descriptors.values())}"
    )


def main() -> int:
    """Runs a soak, says how it goes, and writes its samples where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--camera-every", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument("--json", type=Path, help="write all samples and the report there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        course = soak(
            Path(folder),
            seconds=given.minutes * 60,
            camera_every=given.camera_every,
            look_every=5.0,
            say=lambda text: print(text, flush=True),
        )
    if given.json is not None:
        samples = [
            {name: getattr(sample, name) for name in Sample.__slots__} for sample in course.samples
        ]
        given.json.write_text(json.dumps({"samples": samples, "report": course.report}))
    sink = course.report["sinks"]["udp"]
    print(
        f"{sink['delivered']} of {sink['captured']} pictures delivered, "
        f"{course.camera_restarts} restarts of the camera, {course.changes} changes, "
        f"{course.viewers} viewers"
    )
    found = complaints(course)
    print("\n".join(found) or "memory, descriptors and age are flat, and the count adds up")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
