"""Keeps a source connected: opens it, says how it stands, and opens it again when it is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nodes.decoder.backoff import pause
from nodes.decoder.faults import (
    Fault,
    Reason,
    explain_no_answer,
    explain_reading,
    explain_silence,
)
from nodes.decoder.feed import (
    Broken,
    DirectFeed,
    Feed,
    NoAnswer,
    Stopped,
    ThreadFeed,
    left_behind,
)
from streamer import Context, Status

if TYPE_CHECKING:
    from nodes.decoder import DecoderParams
    from nodes.decoder.address import Address
    from nodes.decoder.feed import Item
    from nodes.decoder.input import Input

_STALLED: Final = 1 / 3
"""Part of the timeout after which a silent source is said to have stalled."""
_POLL: Final = 0.1
_GRACE: Final = 60.0
"""Seconds for which a fault that does not pass by itself is borne where the source has been live or
away before: a camera that starts knows neither its users nor its streams for a while."""
_MOST_LEFT_BEHIND: Final = 8
"""Threads that hang inside FFmpeg, beyond which this process is better given up."""
_PROBING: Final = 4.0
"""Seconds that FFmpeg may look at an open source, beside the timeout, to find its streams."""


class Connection:
    """A source that is there, or is being waited for.

    Args:
        address: what to open.
        params: the decoder's parameters.
        context: told how the connection stands.
        opener: opens the source; blocks.
    """

    def __init__(
        self,
        address: Address,
        params: DecoderParams,
        context: Context,
        opener: Callable[[], Input],
    ) -> None:
        self._address = address
        self._params = params
        self._context = context
        self._opener = opener
        # A named pipe is a path too, but it may block like a socket.
        self.is_file = address.is_local and not Path(address.url).is_fifo()
        """whether it is read here and now"""
        self._returns = self._expected_back()
        self._listens = bool(params.options.get("listen")) and address.kind == "network"
        self._feed: Feed | None = None
        self._status: Status | None = None
        self._before = Status.CONNECTING
        self._fault: Fault | None = None
        self._attempt = 0
        self._lost_at = time.monotonic()
        self._live_at: float | None = None
        self._came = False  # whether a picture has come since it was opened
        self._away = False  # whether it has not been there, which passes
        self._refused_at: float | None = None  # the first of faults that do not pass by themselves

    @property
    def returns(self) -> bool:
        """Whether the source is opened again when it is lost."""
        return self._returns

    def open(self) -> Input | None:
        """Makes the first attempt; None if it failed for now and `again` is to go on.

        Where a sender is waited for, that is left to `again`: it may take for ever.

        Raises:
            Fault: it failed, and trying again makes no sense or is not wanted.
            Stopped: the run is ending.
        """
        if not self.is_file:
            self._say(self._before, f"connecting to {self._address.shown}")
        self._attempt, self._lost_at = 0, time.monotonic()
        if self._listens:
            self._say(self._before, f"waiting for a sender at {self._address.shown}")
            return None
        try:
            return self._try()
        except Fault as fault:
            if not self._returns:
                if not self.is_file:
                    self._say(Status.FAILED, str(fault))
                # Asked for by name and not there: starting the node again would not help.
                raise Fault(str(fault), fault.reason) from None
            self._judge(fault)
            return None

    def again(self) -> Input:
        """Tries until the source is open; waits between the attempts.

        Raises:
            Fault: it is given up.
            Stopped: the run is ending.
        """
        while True:
            if self._fault is not None:
                self._attempt += 1
                self._wait(pause(self._attempt, self._fault.reason, random.random()))
            try:
                return self._try()
            except Fault as fault:
                self._judge(fault)

    def lost(self, fault: Fault) -> None:
        """Takes note that the source has gone.

        Raises:
            Fault: it is not to be opened again.
        """
        if not self._returns:
            self.close()
            raise fault
        if self._came:
            # Else it answered and gave nothing: it has been away all the time.
            self._came, self._attempt, self._lost_at = False, 0, time.monotonic()
        if self._live_at is not None:
            self._before = Status.RECONNECTING
        self._judge(fault)
        self.close()

    def live(self, text: str = "") -> None:
        """A picture has come."""
        self._came = True
        if self._status is not Status.LIVE or text:
            self._live_at, self._refused_at = time.monotonic(), None
            self._say(Status.LIVE, text or self._address.shown)

    def backlog(self) -> list[Item]:
        """Packets that have come in already; see `Feed.backlog`.

        Raises:
            Fault: the source broke off.
            Stopped: the run is ending.
        """
        assert self._feed is not None, "open() comes first"
        try:
            return self._feed.backlog()
        except Broken as broken:
            raise self._explained(broken, 0.0) from broken

    def packets(self, *, after: Callable[[], float]) -> Iterator[Item]:
        """Packets up to the end.

        Args:
            after: seconds that have been played until now, for the sentence of a fault.

        Raises:
            Fault: the source broke off or fell silent.
            Stopped: the run is ending.
        """
        assert self._feed is not None, "open() comes first"
        try:
            yield from self._feed.packets()
        except Broken as broken:
            raise self._explained(broken, after()) from broken

    def _opened(self, source: Input) -> None:
        """Takes note of an opened source that has no end of its own, or is not to end."""
        if self._address.kind != "network" or self._params.give_up == 0:
            return
        if self._params.loop or (self._params.live == "auto" and source.endless):
            self._returns = True

    def close(self) -> None:
        """Closes the source."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _expected_back(self) -> bool:
        """Whether the address alone says that the source comes back."""
        if self._address.is_local or self._params.give_up == 0:
            return False
        asked = self._params.live is True or bool(self._params.give_up)
        return asked or self._address.is_live

    def _try(self) -> Input:
        if self.is_file:
            self._feed = DirectFeed(self._opener, self._context.stopping)
            return self._feed.open()
        if left_behind() >= _MOST_LEFT_BEHIND:
            # The one fault that a new process mends.
            raise Fault(
                f"{self._address.shown}: {left_behind()} attempts hang inside FFmpeg, and no more "
                "are made in this process",
                Reason.TIMEOUT,
                retry=True,
            )
        timeout = self._params.timeout
        patient = self._listens or self._address.is_local
        feed = ThreadFeed(
            self._opener,
            self._context.stopping,
            timeout=timeout,
            patience=None if patient else timeout + _PROBING,
            waiting=self._waiting,
        )
        try:
            source = feed.open()
        except NoAnswer:
            feed.close()
            raise explain_no_answer(self._address, timeout) from None
        except Fault:
            feed.close()
            raise
        except Stopped:
            self._feed = feed
            raise
        self._feed = feed
        self._opened(source)
        return source

    def _judge(self, fault: Fault) -> None:
        """Says that a fault was met; raises it if that is the end."""
        now = time.monotonic()
        self._fault = fault
        since = f" (for {now - self._lost_at:.0f} s)" if now - self._lost_at >= 1 else ""
        limit = self._params.give_up
        if limit is not None and now - self._lost_at >= limit:
            self._fail(f"{fault}; given up after {limit:g} s (give_up)", fault)
        if left_behind() >= _MOST_LEFT_BEHIND:
            self._say(Status.FAILED, str(fault))
            raise fault
        if fault.retry:
            self._away, self._refused_at = True, None
        else:
            if self._live_at is None and not self._away:
                self._fail(str(fault), fault)
            self._refused_at = now if self._refused_at is None else self._refused_at
            if now - self._refused_at >= _GRACE:
                self._fail(f"{fault}; that has not passed for {_GRACE:g} s", fault)
        if self._status is not Status.FAILED:
            self._say(self._before, f"{fault.reason}: {fault}{since}")

    def _fail(self, text: str, fault: Fault) -> None:
        self._say(Status.FAILED, text)
        raise Fault(text, fault.reason) from None

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._context.alive()
            if self._context.stopping.wait(min(left, _POLL)):
                raise Stopped

    def _waiting(self, silent: float) -> None:
        self._context.alive()
        if self._status is Status.LIVE and silent > self._params.timeout * _STALLED:
            self._say(Status.STALLED, f"nothing has come for {silent:.1f} s")

    def _explained(self, broken: Broken, after: float) -> Fault:
        from av.error import ExitError, TimeoutError

        if broken.error is None or isinstance(broken.error, ExitError | TimeoutError):
            return explain_silence(self._address, self._params.timeout)
        return explain_reading(broken.error, self._address, after=after)

    def _say(self, status: Status, text: str) -> None:
        if status is not self._status:
            log = self._context.log
            (log.warning if status is Status.RECONNECTING else log.info)("%s: %s", status, text)
        self._status = status
        self._context.status(status, text)
