"""One worker's process as the supervisor sees it: started, watched, its lines read, ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import deque
from typing import Any, Final

from streamer.errors import RunError

_LONGEST_LINE: Final = 64 * 1024
_MOST_BLOCKS: Final = 64
"""blocks that are read of an ended worker's output; what it started may go on writing"""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class WorkerProcess:
    """A running worker.

    Args:
        name: of the worker.
        incarnation: number of this start, from 1.
        orders: see `streamer.runtime.worker.Worker`.
        board_fd: descriptor of the board's memory.

    Attributes:
        pidfd: becomes readable when the process has ended.
        output: read end of its standard output and error.
        silent: whether it has closed them: nothing more will come.
        last_lines: the latest lines that it wrote.
    """

    def __init__(
        self, name: str, incarnation: int, orders: dict[str, Any], *, board_fd: int
    ) -> None:
        self.name = name
        self.incarnation = incarnation
        self.last_lines: deque[str] = deque(maxlen=20)
        self.silent = False
        self._partial = b""
        self.output, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.output, False)  # the worker's end stays blocking
        try:
            self._process = subprocess.Popen(
                # -P: a file in the working folder named as a module of ours is not taken for it.
                [sys.executable, "-P", "-m", "streamer.runtime.worker", name],  # named for ps
                stdin=subprocess.PIPE,
                stdout=writing,
                stderr=writing,
                pass_fds=(board_fd,),
                start_new_session=True,
            )
        except OSError as error:
            os.close(self.output)
            raise RunError(f"worker {name} cannot be started: {error.strerror}") from error
        finally:
            os.close(writing)
        self.pid = self._process.pid
        self.pidfd = os.pidfd_open(self.pid)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(orders).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it died at once; its pidfd tells

    def lines(self, *, rest: bool = False) -> list[str]:
        """Whole lines that the worker has written since the last call.

        Args:
            rest: it has ended: all that is left, and a line without an end is one, too.
        """
        written = self._partial
        for _ in range(_MOST_BLOCKS if rest else 1):
            try:
                block = os.read(self.output, _LONGEST_LINE)
            except BlockingIOError:
                break
            if not block:
                self.silent = True
                break
            written += block
        *whole, self._partial = written.split(b"\n")
        if len(self._partial) > _LONGEST_LINE or (rest and self._partial):
            whole, self._partial = [*whole, self._partial], b""
        lines = [line.decode(errors="replace").rstrip() for line in whole]
        self.last_lines.extend(lines)
        return lines

    def poll(self) -> int | None:
        """Exit status, negative for a signal, or None while it runs."""
        return self._process.poll()

    def rss_mb(self) -> float:
        """Resident memory in MiB, 0 if it has ended."""
        try:
            with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * _PAGE / 2**20
        except (OSError, IndexError):
            return 0.0

    def kill(self) -> None:
        """Ends the process and whatever it has started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Lets go of the descriptors of a process that has ended."""
        self._process.wait()
        os.close(self.pidfd)
        os.close(self.output)
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()


def describe_exit(status: int) -> str:
    """What an exit status means, in words."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
