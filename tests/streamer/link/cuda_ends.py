"""Ends of links on a GPU in processes of their own, and ways to disturb them."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from links import settled

from streamer.gpu.simulated.world import world
from streamer.link.outlet import Outlet

PEERS = Path(__file__).with_name("cuda_peers.py")


class Peer:
    """One end of a link in a process of its own; see `cuda_peers`."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, str(PEERS), *map(str, words)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def says(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == word + "\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def saw(self, out: Outlet) -> dict[str, Any]:
        """What a consumer has seen by the end of the stream."""
        assert settled(out, lambda: self.process.poll() is not None)
        text, _ = self.process.communicate()
        assert self.process.returncode == 0
        return json.loads(text.splitlines()[-1])  # type: ignore[no-any-return]


def stand_still(process: Any, folder: Path | None) -> None:
    """Stops a process; where a GPU is simulated, not while it holds the books of that folder."""
    with contextlib.nullcontext() if folder is None else world(folder).locked():
        process.send_signal(signal.SIGSTOP)
        # Each thread stops by itself; one that has not yet could still take the books.
        threads = list(Path(f"/proc/{process.pid}/task").iterdir())
        while any(
            (thread / "stat").read_text().rpartition(")")[2].split()[0] != "T" for thread in threads
        ):
            time.sleep(0.001)
