"""This end of a sender: starts its process, passes packets, hears what became of them."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from nodes.encoder.tracks import Track

_PIPE: Final = 1 << 20
_F_SETPIPE_SZ: Final = 1031


class RemoteError(Exception):
    """What a sender says of an error of FFmpeg.

    Attributes:
        doing: what failed, as in `cannot ...`: `open`, `write to`, `finish`.
        kind: name of PyAV's exception.
        errno: FFmpeg's number, 0 if there is none.
        strerror: FFmpeg's words; an address may stand in them.
    """

    def __init__(self, doing: str, kind: str, number: int, text: str) -> None:
        super().__init__(text)
        self.doing, self.kind, self.errno, self.strerror = doing, kind, number, text


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a sender has said of its present connection.

    Attributes:
        what: `ready` (of the first process only), `opened`, `muxed`, `closed` or `failed`.
        failure: why, where it failed.
    """

    what: str
    failure: RemoteError | None = None


class Remote:
    """A sender in a process of its own; nothing here waits for it, unless asked to.

    The process is started on the first use, and again after it was killed or has died.

    Attributes:
        ready_at: when the present process was ready to connect, by `time.monotonic`; None: it is
            not yet.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._unpacker = msgpack.Unpacker()
        self._out: deque[memoryview] = deque()
        self._number = 0
        self.ready_at: float | None = None

    def start(self) -> None:
        """Starts the process if there is none, so that it is ready when it is needed."""
        if self._process is not None:
            return
        # As the worker found its modules, so shall this one.
        path = os.pathsep.join(entry for entry in sys.path if entry)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nodes.encoder.sender", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        for pipe in (process.stdin, process.stdout):
            os.set_blocking(pipe.fileno(), False)
        import fcntl

        try:
            fcntl.fcntl(process.stdin.fileno(), _F_SETPIPE_SZ, _PIPE)
        except PermissionError:
            pass  # the user's pipes are used up; a small one does, with more turns
        self._process = process
        self._unpacker = msgpack.Unpacker()
        self._out.clear()
        self.ready_at = None

    def open(self, url: str, muxer: str, options: dict[str, str], tracks: list[Track]) -> None:
        """Asks for a connection; `opened` or `failed` follows."""
        self.start()
        self._number += 1
        self._send("open", self._number, url, muxer, options, [t.to_dict() for t in tracks])

    def packet(self, stream: int, packet: Any) -> None:
        """Passes one of FFmpeg's packets for a stream; `muxed` or `failed` follows."""
        base = packet.time_base
        self._send(
            "packet",
            stream,
            bytes(packet),
            packet.pts,
            packet.dts,
            packet.duration or 0,
            bool(packet.is_keyframe),
            (base.numerator, base.denominator),
        )

    def end(self) -> None:
        """Asks for a proper end of the connection; `closed` or `failed` follows."""
        self._send("close")

    def poll(self, seconds: float = 0.0) -> list[Event]:
        """Passes on what can be passed on, and returns what has been said since.

        Args:
            seconds: how long to wait for something to be said.
        """
        process = self._process
        if process is None:
            return []
        assert process.stdin is not None
        assert process.stdout is not None
        end = time.monotonic() + seconds
        while True:
            self._flush(process.stdin.fileno())
            events, alive = self._hear(process.stdout.fileno())
            if not alive:
                self.kill()
                text = "the process that holds the connection has died"
                return [*events, Event("failed", RemoteError("reach", "Died", 0, text))]
            left = end - time.monotonic()
            if events or left <= 0:
                return events
            poller = select.poll()
            poller.register(process.stdout, select.POLLIN)
            if self._out:
                poller.register(process.stdin, select.POLLOUT)
            poller.poll(left * 1000 + 1)

    def kill(self) -> None:
        """Ends the process at once, whatever it is in."""
        process, self._process = self._process, None
        self.ready_at = None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        process.wait()

    def _send(self, *message: Any) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._out.append(memoryview(msgpack.packb(message)))
        self._flush(self._process.stdin.fileno())

    def _flush(self, pipe: int) -> None:
        while self._out:
            try:
                written = os.write(pipe, self._out[0])
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
                self._out.clear()  # it has died; the other pipe tells
                return
            if written == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][written:]

    def _hear(self, pipe: int) -> tuple[list[Event], bool]:
        """What was said, and whether the process still lives."""
        events: list[Event] = []
        alive = True
        while True:
            try:
                data = os.read(pipe, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                alive = False
                break
            self._unpacker.feed(data)
        for what, number, *more in self._unpacker:
            if what == "ready":
                self.ready_at = time.monotonic()
            if number == self._number:
                failure = RemoteError(*more) if what == "failed" else None
                events.append(Event(what, failure))
        return events, alive

    def __repr__(self) -> str:
        pid = self._process.pid if self._process is not None else None
        return f"<Remote pid={pid} connection={self._number}>"
