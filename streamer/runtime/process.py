"""One worker's process as the supervisor sees it: started, watched, its lines read, ended."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

from streamer.errors import RunError
from streamer.runtime.control import NAMELESS

_LONGEST_LINE: Final = 64 * 1024
_MOST_BLOCKS: Final = 64
"""blocks that are read of an ended worker's output; what it started may go on writing"""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class WorkerProcess:
    """A process for a worker: first idle, getting ready for any, until it is given its orders.

    Args:
        board_fd: descriptor of the board's memory.
        name: of the worker, where it is known; for lists of processes.

    Attributes:
        pid: of the process.
        pidfd: becomes readable when the process has ended.
        output: read end of its standard output and error.
        silent: whether it has closed them: nothing more will come.

    Raises:
        RunError: the system cannot start a process.
    """

    def __init__(self, *, board_fd: int, name: str = NAMELESS) -> None:
        self.name = name
        self.silent = False
        self._partial = b""
        try:
            self.output, writing = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise _cannot_start(name, error) from error
        try:
            os.set_blocking(self.output, False)  # the worker's end stays blocking
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
            raise _cannot_start(name, error) from error
        finally:
            os.close(writing)
        self.pid = self._process.pid
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            self.kill()
            self.pidfd = -1
            self.close()
            raise _cannot_start(name, error) from error

    def prepare(self, entries: Sequence[str]) -> None:
        """Has an idle process import nodes' modules ahead of its orders; again, they are light."""
        self._say({"prepare": list(entries), "path": [entry for entry in sys.path if entry]})

    def order(self, name: str, orders: dict[str, Any]) -> None:
        """Makes it the process of a worker.

        Args:
            name: of the worker.
            orders: see `streamer.runtime.worker.Worker`.
        """
        self.name = name
        self._say(orders)

    def _say(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once; its pidfd tells
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()

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
        return [line.decode(errors="replace").rstrip() for line in whole]

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

    @property
    def stopped(self) -> bool:
        """Whether it was stopped, by SIGSTOP or a debugger."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as file:
                return file.read().rpartition(")")[2].split()[0] in "Tt"
        except (OSError, IndexError):
            return False

    def show_stacks(self) -> None:
        """Has it write to its log where each of its threads is, unless it is stopped."""
        if not self.stopped:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGUSR1)

    def kill(self) -> None:
        """Ends the process and whatever it has started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Lets go of the descriptors of a process that has ended."""
        self._process.wait()
        if self.pidfd >= 0:
            os.close(self.pidfd)
        os.close(self.output)
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()


def _cannot_start(name: str, error: OSError) -> RunError:
    advice = {
        errno.EMFILE: "this user's programs may have more open at once: raise `ulimit -n`",
        errno.ENFILE: "all programs of this machine have too many files open",
        errno.EAGAIN: "no more processes are allowed: raise `ulimit -u` or the container's limit",
        errno.ENOMEM: "free some memory",
    }.get(error.errno or 0, "")
    return RunError(
        f"worker {name} cannot be started: {error.strerror}" + (f"; {advice}" if advice else "")
    )
