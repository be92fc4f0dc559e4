"""An idle process that a worker can go on in at once when its own has died."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from streamer.errors import RunError
from streamer.masking import mask
from streamer.runtime.process import WorkerProcess

FIRST_PAUSE: Final = 2.0
"""seconds before a spare process that has died is replaced"""
LONGEST_PAUSE: Final = 300.0
"""seconds that the doubling pause does not exceed"""
LAST_LINES: Final = 3
"""lines of what a dead one has written that are told"""


class Spare:
    """See the module. The pause after each death doubles, until a worker has taken one.

    Args:
        board_fd: descriptor of the board's memory.
        say: told in a sentence of the first of the deaths.
    """

    def __init__(self, *, board_fd: int, say: Callable[[str], None]) -> None:
        self._board_fd = board_fd
        self._say = say
        self._process: WorkerProcess | None = None
        self._tries = 0
        self._told = False
        self._not_before = 0.0

    def keep(self, entries: Sequence[str], *, now: float) -> None:
        """Sees to it that there is one.

        Args:
            entries: of the nodes whose modules it imports.
            now: seconds of `time.monotonic`.
        """
        if self._process is not None and self._process.poll() is not None:
            self._died(self._process, now)
        if self._process is None and now >= self._not_before:
            try:
                self._process = WorkerProcess(board_fd=self._board_fd)
            except RunError:  # there will be another attempt, and a start anyway
                self._pause(now)
            else:
                self._process.prepare(entries)

    def take(self) -> WorkerProcess | None:
        """Hands over the process, if there is one that lives."""
        process = self._process
        if process is None or process.poll() is not None:
            return None  # what died is seen to by `keep`
        self._process = None
        self._tries, self._told = 0, False
        return process

    def dismiss(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.close()

    def _died(self, process: WorkerProcess, now: float) -> None:
        wrote = [mask(line) for line in process.lines(rest=True) if line][-LAST_LINES:]
        self.dismiss()
        self._pause(now)
        if not self._told:
            self._told = True
            last = f": {' | '.join(wrote)}" if wrote else ""
            self._say(f"the spare process has died{last}; it is tried again, ever more rarely")

    def _pause(self, now: float) -> None:
        self._not_before = now + min(FIRST_PAUSE * 2 ** min(self._tries, 20), LONGEST_PAUSE)
        self._tries += 1

    def __repr__(self) -> str:
        return f"<Spare: {'none' if self._process is None else self._process.pid}>"
