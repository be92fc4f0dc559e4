"""A real run to do harm to: started in a folder of its own, watched, and examined afterwards.

Every process of a run carries a mark in its environment, so that whatever is left of it is found,
wherever it has gone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
from e2e_support import ROOT, make_clip, read_report

from streamer.errors import StreamerError
from streamer.runtime.control import NAMELESS
from streamer.runtime.remote import Remote, RunningGraph

MARK = "STREAMER_CHAOS"
FLOWING = 1.0
"""seconds of pictures without a gap after which a stream counts as flowing again"""
GAP = 0.3
"""seconds without a picture that count as a gap"""
PATIENCE = 60.0
"""seconds after which something that should happen counts as never happening"""
NODES = Path(__file__).parent
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


class BrokenError(AssertionError):
    """A fault was not survived as it should be; the message says in what."""


class LackingError(Exception):
    """This machine lacks what a fault needs."""


def demand(condition: object, text: str) -> None:
    """Raises `BrokenError` with a text unless a condition holds."""
    if not condition:
        raise BrokenError(text)


def until(condition: Callable[[], Any], what: str, *, seconds: float = PATIENCE) -> Any:
    """Waits until a condition holds, and returns its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        demand(time.monotonic() < end, f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(0.02)
    return value


def clip() -> Path:
    """A clip of 20 seconds, made once for each user and machine."""
    path = Path(tempfile.gettempdir(), f"streamer-chaos-clip-{os.getuid()}.mp4")
    if not path.exists():
        part = path.with_name(f"{os.getpid()}-{path.name}")
        make_clip(part, frames=600)
        part.rename(path)
    return path


class Show:
    """One run of a graph.

    Args:
        folder: for the graph file, the outputs, the report and the log.
        graph: text of the graph file; `$CLIP` and `$OUT` stand for a clip and the folder.
        arguments: further ones of `streamer run`.
        preexec: called in the new process before it begins.
        piped: its log goes into a pipe, until `hang_up`.
    """

    def __init__(
        self,
        folder: Path,
        graph: str,
        *arguments: str,
        preexec: Callable[[], None] | None = None,
        piped: bool = False,
    ) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.temporary = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
        self.log = folder / "log.txt"
        self.report_file = folder / "report.json"
        file = folder / "chaos.yaml"
        file.write_text(graph.replace("$CLIP", str(clip())).replace("$OUT", str(folder)))
        self._remote: Remote | None = None

        def prepare() -> None:
            # Whoever runs this may ignore them: nohup does, and a shell for what it runs behind.
            for number in (signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            if preexec is not None:
                preexec()

        command = [sys.executable, "-P", "-m", "streamer", "run", str(file)]
        self._pipe, log_fd = os.pipe() if piped else (-1, os.open(self.log, _WRITE, 0o644))
        with os.fdopen(log_fd, "wb") as log:
            self.process = subprocess.Popen(
                [*command, "--report", str(self.report_file), *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=prepare,
                env={
                    **os.environ,
                    MARK: self.mark,
                    "TMPDIR": str(self.temporary),
                    "PYTHONPATH": os.pathsep.join([str(ROOT), str(NODES)]),
                },
            )
        self.pid = self.process.pid

    def hang_up(self) -> None:
        """Closes the pipe that its log goes into: nobody reads it any more."""
        os.close(self._pipe)
        self._pipe = -1

    # ---- what it does --------------------------------------------------------------------------

    def ask(self) -> dict[str, Any]:
        """How the run and its nodes stand, as `streamer status` tells it."""
        return self._connected().status()

    def node(self, name: str) -> dict[str, Any]:
        """How one node stands."""
        found: dict[str, Any] = self.ask()["nodes"][name]
        return found

    def delivered(self, sink: str) -> int:
        """Pictures that a sink has delivered, or a node has passed on, so far."""
        return int(self.node(sink)["frames"])

    def set(self, path: str, value: Any) -> int:
        """Changes a parameter, as `streamer set` does."""
        return self._connected().set(path, value)

    def socket_folder(self) -> Path:
        """Where its sockets are."""
        found: list[Path] = until(
            lambda: list(self.temporary.glob("streamer-*/run.json")), "the run has a folder"
        )
        return found[0].parent

    def flowing(self, sink: str, *, frames: int = 15) -> None:
        """Waits until pictures flow."""
        until(lambda: self.process.poll() is not None or self._has(sink, frames), "pictures flow")
        demand(self.process.poll() is None, f"the run ended early: {self.last_words()}")

    def _has(self, sink: str, frames: int) -> bool:
        if not list(self.temporary.glob("streamer-*/run.json")):
            return False
        with suppress(StreamerError):
            return self.delivered(sink) >= frames
        return False

    def pid_of(self, node: str) -> int:
        """The process of a node."""
        pid: int = until(lambda: self.node(node).get("pid"), f"{node} has a process")
        return pid

    def _connected(self) -> Remote:
        if self._remote is None:
            self._remote = Remote(RunningGraph("chaos", self.pid, self.socket_folder()))
        return self._remote

    def outage(
        self,
        sink: str,
        harm: Callable[[], object],
        *,
        settled: Callable[[], bool] = lambda: True,
        seconds: float = PATIENCE,
    ) -> float:
        """Does harm, and waits until pictures flow again.

        Args:
            sink: where they are looked for.
            harm: called once.
            settled: whether the harm has been dealt with, so that flowing counts.
            seconds: most that it may take.

        Returns:
            seconds from the harm to the end of the longest gap; 0 if there was none.
        """
        count, seen = self.delivered(sink), time.monotonic()
        harm()
        began = time.monotonic()
        longest, ended, flows_since = 0.0, began, began
        while True:
            time.sleep(0.02)
            now, new = time.monotonic(), self.delivered(sink)
            if new != count:
                gap = now - seen
                if gap > longest and now > began:
                    longest, ended = gap, now
                if gap > GAP:
                    flows_since = now
                count, seen = new, now
            calm = now - seen < GAP and now - max(flows_since, began) > FLOWING
            if calm and settled():
                return ended - began if longest > GAP else 0.0
            demand(now - began < seconds, f"pictures did not flow again within {seconds:.0f} s")
            demand(self.process.poll() is None, f"the run ended: {self.last_words()}")

    def restarted(self, *nodes: str) -> Callable[[], bool]:
        """Whether all these nodes have been started again, since this was called, and run."""
        before = {name: node["restarts"] for name, node in self.ask()["nodes"].items()}

        def check() -> bool:
            now = self.ask()["nodes"]
            return all(
                now[name]["restarts"] > before[name] and now[name]["state"] == "running"
                for name in nodes
            )

        return check

    def spare(self) -> None:
        """Waits until the process that the run keeps for a restart has got ready."""

        def spent() -> tuple[int, str] | None:
            for pid in self.processes():
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if NAMELESS.encode() in words:
                    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
                    return pid, " ".join(times)
            return None

        def idle() -> bool:
            before = spent()
            time.sleep(0.5)
            return before is not None and before == spent()

        until(idle, "a spare process is ready")

    def descriptors(self) -> int:
        """How many descriptors the supervisor has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def last_words(self) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "its log went into a pipe"
        return self.log.read_text(errors="replace")[-600:].strip()

    # ---- its end -------------------------------------------------------------------------------

    def stop(self, *signals: int) -> int:
        """Sends signals (Ctrl-C by default), and returns the exit status."""
        for number in signals or (signal.SIGINT,):
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
            time.sleep(0.05)
        try:
            return self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise BrokenError(f"the run did not end: {self.last_words()}") from None

    def nothing_left(self, *, swept: bool = False) -> None:
        """Nothing of a run that has ended is left: no process, no folder.

        Shared memory has no name, and goes with the last process that maps it.

        Args:
            swept: nobody was left who could remove the sockets: the next command does.
        """
        until(lambda: not self.processes(), f"processes {self.processes()} have ended")
        if swept:
            environment = {**os.environ, "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT)}
            command = [sys.executable, "-P", "-m", "streamer", "status"]
            subprocess.run(command, env=environment, check=True, capture_output=True)
        until(lambda: not os.listdir(self.temporary), "no temporary folder is left", seconds=10)

    def report(self) -> dict[str, Any]:
        """The report, which adds up."""
        try:
            return read_report(self.report_file)
        except FileNotFoundError:
            raise BrokenError(f"there is no report: {self.last_words()}") from None

    def plays(self, *, at_least: int, pattern: str = "out*.mkv") -> int:
        """Decodes all parts of the recording, and tells how many pictures they hold."""
        pictures = 0
        for part in sorted(self.folder.glob(pattern)):
            with suppress(av.error.InvalidDataError, av.error.EOFError):
                # A part that was cut off before its first picture was written holds none.
                pictures += played(part)
        demand(pictures >= at_least, f"{pictures} pictures play, not {at_least}")
        return pictures

    def processes(self) -> list[int]:
        """What runs of it, anywhere on this machine; no zombies."""
        marked, found = f"{MARK}={self.mark}".encode(), []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                with suppress(OSError):
                    if marked in Path(f"/proc/{entry}/environ").read_bytes():
                        state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                        if state[0] not in "ZX":
                            found.append(int(entry))
        return found

    def close(self) -> None:
        """Ends what is left, whatever has gone wrong."""
        if self._remote is not None:
            self._remote.close()
            self._remote = None
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        subprocess.run(["rm", "-rf", str(self.temporary)], check=True)
        if self._pipe >= 0:
            self.hang_up()


def played(path: Path) -> int:
    """Decodes a file to its end; its times grow. How many pictures it holds."""
    times: list[float] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            times.append(float(frame.time or 0.0))
    demand(times == sorted(set(times)), f"times in {path.name} do not grow")
    return len(times)


@contextmanager
def show(graph: str, *arguments: str, **options: Any) -> Iterator[Show]:
    """A run in a new folder, which is removed afterwards unless it was not survived."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-show-"))
    one = Show(folder, graph, *arguments, **options)
    try:
        yield one
    except (BrokenError, AssertionError, StreamerError, OSError, json.JSONDecodeError):
        one.close()
        print(f"kept for you to look at: {folder}", file=sys.stderr)
        raise
    else:
        one.close()
        subprocess.run(["rm", "-rf", str(folder)], check=True)
