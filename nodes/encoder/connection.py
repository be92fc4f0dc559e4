"""The connection of a live output: made, watched, lost and made again."""

from __future__ import annotations

import random
import time
from collections import deque
from enum import Enum, auto
from typing import Any, Final

from nodes.backoff import LONGEST, delay
from nodes.encoder.failures import is_lasting, is_refusal, reason
from nodes.encoder.outputs import Output
from nodes.encoder.remote import Remote, RemoteError
from nodes.encoder.tracks import Track
from streamer import Context, Drop, Header, SinkError, Status

CONGESTED: Final = 0.5
"""seconds that a packet may be under way to the server before pictures are dropped for it"""
_STALLED: Final = 1.0
"""seconds after which that is said"""
_STARTING: Final = 30.0
"""seconds that the process which connects may take to start; they are no silence of the server's"""
_GLANCE: Final = 0.03
"""seconds that the first answer is waited for: near servers need no more, and no picture is lost"""
_BRIEF: Final = 0.5
"""seconds in which a connection is ended that another one follows"""
_PROVEN: Final = 1.0
"""seconds that a connection must have held to count as one: behind an open port there may be
nothing, which closes it at once"""
_REFUSED: Final = 10.0
"""seconds that no wait exceeds before a server that has refused the stream is asked again"""


class Phase(Enum):
    """How far a connection is."""

    AWAY = auto()
    CONNECTING = auto()
    OPEN = auto()
    CLOSED = auto()


class Connection:
    """Keeps up a connection and the books of what is under way.

    Args:
        output: the server's address.
        options: of the muxer, by FFmpeg's names.
        timeout: seconds that the server may take to answer, or take nothing.
        give_up: seconds without a connection after which the output fails; None: never.
        context: of the node.

    Attributes:
        phase: how far it is.
        ever: whether there was ever a connection.
    """

    def __init__(
        self,
        output: Output,
        *,
        options: dict[str, str],
        timeout: float,
        give_up: float | None,
        context: Context,
    ) -> None:
        self.phase = Phase.AWAY
        self.ever = False
        self._output, self._options = output, options
        self._timeout, self._give_up = timeout, give_up
        self._context = context
        self._remote = Remote()
        self._under_way: deque[tuple[float, Header | None]] = deque()
        self._asked_at = 0.0
        self._retry_at = 0.0
        self._away_since: float | None = None
        self._opened_at = 0.0
        self._attempt = 0
        self._why = ""
        self._dropped = 0
        self._stalled = False
        self._ending = False
        self._began = False  # whether a process was ever ready to connect

    def start(self) -> None:
        """Gets ready, before the first picture."""
        self._remote.start()
        self._context.status(Status.CONNECTING, f"to {self._output.shown}")
        self._remote.poll(self._timeout)

    @property
    def may_try(self) -> bool:
        """Whether a connection is to be asked for now."""
        return self.phase is Phase.AWAY and time.monotonic() >= self._retry_at

    @property
    def starting(self) -> bool:
        """Whether the server could not be asked yet: the process that does it is not up."""
        return not (self._began or self._attempt)

    @property
    def congested(self) -> bool:
        """Whether the server takes less than it is sent."""
        return bool(self._under_way) and time.monotonic() - self._under_way[0][0] > CONGESTED

    def ask(self, tracks: list[Track]) -> None:
        """Asks for a connection with these streams; `phase` tells when it is there.

        Raises:
            SinkError: there will be none.
        """
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        self._asked_at = now
        self.phase = Phase.CONNECTING
        self._remote.open(self._output.url, self._output.container.muxer, self._options, tracks)
        if not self._attempt:
            self.look(_GLANCE)

    def send(self, stream: int, packet: Any, header: Header | None) -> None:
        """Sends a packet; its picture counts as delivered when the server has it."""
        self._under_way.append((time.monotonic(), header))
        self._remote.packet(stream, packet)

    def drop(self) -> None:
        """Counts a picture for which there is no connection."""
        self._dropped += 1
        self._context.drop(Drop.DISCONNECTED)

    def look(self, seconds: float = 0.0) -> None:
        """Hears what has become of what was asked and sent.

        Args:
            seconds: how long to wait for news.

        Raises:
            SinkError: there will be none.
        """
        for event in self._remote.poll(seconds):
            match event.what:
                case "opened":
                    self._opened()
                case "muxed":
                    _, header = self._under_way.popleft()
                    if header is not None:
                        self._context.delivered(header)
                    if self._stalled and not self.congested:
                        self._stalled = False
                        self._context.status(Status.LIVE, self._output.shown)
                case "closed":
                    self.phase = Phase.CLOSED
                case "failed":
                    assert event.failure is not None
                    self._lost(event.failure)
        self._watch()

    def restart(self) -> None:
        """Ends this connection for one with other streams; pictures under way may still go."""
        self.close(within=_BRIEF)
        self.phase = Phase.AWAY
        self._retry_at, self._ending = 0.0, False
        self._away_since, self._attempt = None, 0

    def close(self, *, within: float | None = None) -> None:
        """Ends the connection properly.

        Args:
            within: seconds for it; the time that the server has for answers by default.
        """
        self._ending = True
        if self.phase is Phase.OPEN:
            self._remote.end()
            until = time.monotonic() + (self._timeout if within is None else within)
            while self.phase is Phase.OPEN and time.monotonic() < until:
                self._context.alive()
                self.look(0.05)
        if self.phase is not Phase.CLOSED:
            self.abandon()

    def abandon(self) -> None:
        """Ends the connection at once; what was under way counts as lost."""
        self._remote.kill()
        for _, header in self._under_way:
            if header is not None:
                self.drop()
        self._under_way.clear()
        self.phase = Phase.CLOSED

    def patience(self) -> float | None:
        """Seconds after which `look` wants to be called again, without pictures; None: no need."""
        now = time.monotonic()
        if self.phase is Phase.AWAY:
            return max(0.0, self._retry_at - now)
        if self.phase is Phase.CONNECTING:
            return 0.01
        if self._under_way:
            # What was just sent is acknowledged at once, as a rule, and its age is told.
            return 0.002 if now - self._under_way[-1][0] < 0.1 else 0.05
        return None

    def unreached(self) -> str:
        """What to say where no connection ever came."""
        return f"cannot reach {self._output.shown}: {self._why or 'no answer has come yet'}"

    def _opened(self) -> None:
        self.phase = Phase.OPEN
        self._context.status(Status.LIVE, self._output.shown)
        away = time.monotonic() - (self._away_since or 0.0)
        if self.ever:
            self._context.log.warning(
                "%s is connected again after %.1f s; %d pictures were lost",
                self._output.shown,
                away,
                self._dropped,
            )
        else:
            late = f"; {self._dropped} pictures came before that" if self._dropped else ""
            self._context.log.info("%s is connected%s", self._output.shown, late)
        self.ever = True
        self._opened_at, self._dropped = time.monotonic(), 0

    def _watch(self) -> None:
        now = time.monotonic()
        ready = self._remote.ready_at
        self._began = self._began or ready is not None
        if self.phase is Phase.CONNECTING:
            if ready is None and now - self._asked_at > _STARTING:
                self._hung("reach", f"the process that connects is not up after {_STARTING:g} s")
            elif ready is not None and now - max(self._asked_at, ready) > self._timeout:
                self._hung("open", f"no answer came within {self._timeout:g} s")
        elif self.phase is Phase.OPEN and self._under_way:
            waiting = now - self._under_way[0][0]
            if waiting > self._timeout:
                self._hung("write to", f"it has taken nothing for {self._timeout:g} s")
            elif waiting > _STALLED and not self._stalled:
                self._stalled = True
                self._context.status(Status.STALLED, "the server takes nothing")
        if self.starting and self._away_since is not None:
            self._away_since = now
        if (
            self._give_up is not None
            and self.phase is not Phase.OPEN
            and self._away_since is not None
            and now - self._away_since > self._give_up
        ):
            text = f"{self.unreached()}; gave up after {self._give_up:g} s (give_up)"
            self._context.status(Status.FAILED, text)
            raise SinkError(text)

    def _hung(self, doing: str, text: str) -> None:
        self._remote.kill()  # FFmpeg cannot be interrupted
        self._lost(RemoteError(doing, "Timeout", 0, text))
        self._remote.start()

    def _lost(self, failure: RemoteError) -> None:
        self._why, refused = reason(failure), is_refusal(failure.kind)
        if not self.ever and is_lasting(failure.kind, failure.errno):
            self._context.status(Status.FAILED, self._why)
            raise SinkError(f"cannot {failure.doing} {self._output.shown}: {self._why}")
        if self._ending:
            self._context.log.warning(
                "%s was not ended properly: %s", self._output.shown, self._why
            )
        elif self.phase is Phase.OPEN:
            self._context.log.warning(
                "the connection to %s is lost: %s; trying again", self._output.shown, self._why
            )
        elif not self._attempt and not self.ever:
            what = "%s does not take it yet" if refused else "cannot reach %s yet"
            self._context.log.warning(what + ": %s; trying again", self._output.shown, self._why)
        now = time.monotonic()
        if self.phase is Phase.OPEN and now - self._opened_at >= _PROVEN:
            self._away_since, self._attempt = None, 0
        if self._away_since is None:
            self._away_since = now
        for _, header in self._under_way:
            if header is not None:
                self.drop()
        self._under_way.clear()
        self._stalled = False
        self.phase = Phase.AWAY
        self._attempt += 1
        longest = _REFUSED if refused else LONGEST
        self._retry_at = now + delay(self._attempt, random=random.random(), longest=longest)
        status = Status.RECONNECTING if self.ever else Status.CONNECTING
        self._context.status(status, f"{self._why} (attempt {self._attempt})")

    def __repr__(self) -> str:
        return f"<Connection {self._output.shown} {self.phase.name.lower()}>"
