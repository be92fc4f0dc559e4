"""Standard error for a program that must not wait for whoever reads it."""

from __future__ import annotations

import io
import os
import threading
from typing import Final, TextIO

_ROOM: Final = 1 << 18


class Unhurried(io.TextIOBase):
    """Text that a thread of its own writes: a terminal that is stopped (Ctrl-S) stops nothing else.

    What finds no room is left out, and it is said how much that was once writing goes on. What the
    file refuses, as on a full disk, is lost.

    Args:
        stream: where to; what has no descriptor is written to at once.
        room: characters that may wait.
    """

    def __init__(self, stream: TextIO, *, room: int = _ROOM) -> None:
        self._stream = stream
        self._room = room
        self._waiting: list[str] = []
        self._held = self._left_out = 0
        self._busy = self._nobody = False
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        try:
            self._descriptor: int | None = stream.fileno()
        except (OSError, ValueError):
            self._descriptor = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As the stream's."""
        return self._stream.encoding or "utf-8"

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The stream's descriptor."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Leaves text to be written.

        Raises:
            BrokenPipeError: nobody reads it any more.
        """
        if self._descriptor is None:
            return self._stream.write(text)
        with self._news:
            if self._nobody:
                raise BrokenPipeError
            if self._held + len(text) > self._room:
                self._left_out += len(text)
                return len(text)
            self._tell()
            self._leave(text)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stderr", daemon=True)
                self._thread.start()
            self._news.notify_all()
        return len(text)

    def flush(self) -> None:
        """Does not wait; see `settle`."""
        if self._descriptor is None:
            self._stream.flush()

    def settle(self) -> None:
        """Waits until all is written, however long that takes."""
        with self._news:
            self._news.wait_for(lambda: self._nobody or not (self._waiting or self._busy))

    def _run(self) -> None:
        while True:
            with self._news:
                self._busy = False
                self._news.notify_all()
                self._news.wait_for(lambda: self._waiting)
                text, self._waiting = "".join(self._waiting), []
                self._busy = True
            try:
                self._write(text)
            except BrokenPipeError:
                with self._news:
                    self._nobody = True
                    self._news.notify_all()
                return
            except OSError:
                pass
            with self._news:
                self._held -= len(text)
                self._tell()

    def _leave(self, text: str) -> None:
        self._waiting.append(text)
        self._held += len(text)

    def _tell(self) -> None:
        # After all that found room before the gap, and before what does after it.
        if self._left_out:
            self._leave(f"streamer: {self._left_out} characters were left out here\n")
            self._left_out = 0

    def _write(self, text: str) -> None:
        # Past the stream's own buffer, whose lock would be held while a write waits, and be wanted
        # at the end of the program.
        assert self._descriptor is not None
        rest = memoryview(text.encode(self.encoding, errors="backslashreplace"))
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
