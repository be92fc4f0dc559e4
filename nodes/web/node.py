"""The web node."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from nodes.web.address import parse_listen
from nodes.web.params import WebParams
from nodes.web.token import kept_token
from streamer import Count, Frame, Packet, Sink, Status

if TYPE_CHECKING:
    from nodes.encoder.codecs import Setup
    from nodes.web.connections import Connections
    from nodes.web.hub import Hub
    from nodes.web.programme import Programme
    from nodes.web.server import Server

_CONNECTIONS: Final = 32  # of HTTP, beside two for each viewer
_LOOK: Final = 0.1  # seconds between two looks for wishes of viewers while no picture comes
_RATE_OVER: Final = 64  # pictures over which the rate is told


class Web(Sink[WebParams]):
    """Serves a page, MPEG-TS, MJPEG and single pictures to any number of viewers.

    A picture counts as delivered when this node takes it, whether or not anybody watches: it is
    then encoded at once, in each form that somebody watches, and handed to the server, which
    viewers cannot hold up. What a slow viewer does not get is counted as skipped, not as dropped.
    """

    Params = WebParams
    accepts: ClassVar[tuple[str, ...]] = ("yuv420p", "nv12", "rgb24", "bgr24", "gray", "rgba")
    deferred: ClassVar[bool] = True

    def __init__(self, params: WebParams) -> None:
        super().__init__(params)
        self._hub: Hub | None = None
        self._server: Server | None = None
        self._setup: Setup | None = None
        self._programme: Programme | None = None
        self._last: Frame | None = None
        self._taken = 0
        self._came: deque[float] = deque(maxlen=_RATE_OVER)
        self._age_ms = 0.0
        self._shown_at = 0.0
        self._slate_image: Any = None
        self._slate: Frame | None = None

    @classmethod
    def claims(cls, params: WebParams) -> Mapping[str, str]:
        """The port that it listens on, unless the system chooses one."""
        address = parse_listen(params.listen)
        return {"listen": f"listen {address}"} if address.port else {}

    def takes_audio(self) -> bool:
        """Whether sound is asked for."""
        return self.params.audio == "auto"

    def open(self) -> None:
        """Finds an encoder and begins to serve.

        Raises:
            SinkError: the address cannot be listened on.
            ParameterError: no encoder opens with these settings, or the slate cannot be read.
        """
        from nodes.web.hub import Hub
        from nodes.web.programme import Programme
        from nodes.web.server import Server
        from nodes.web.video import choose_h264, choose_software

        params, context = self.params, self.context
        if params.idle == "slate":
            from nodes.encoder.stand_in import load_slate

            self._slate_image = load_slate(params.slate)
        setup = choose_h264(params, gpu=context.gpu)
        self._hub = Hub(
            limit=params.max_viewers,
            stall=params.stall,
            viewers=context.viewers,
            skipped=lambda: context.count(Count.SKIPPED),
        )
        self._programme = Programme(
            setup,
            hub=self._hub,
            jpeg_quality=params.jpeg_quality,
            log=context.log,
            instead=partial(choose_software, params) if params.codec == "auto" else None,
        )
        token, said = self._token()
        self._server = Server(
            params.address,
            hub=self._hub,
            most_connections=2 * params.max_viewers + _CONNECTIONS,
            site=lambda connections: self._site(connections, token),
            log=context.log,
        )
        self._server.start()
        address = self._server.address
        context.status(Status.LIVE, f"http://{address}/")
        if context.incarnation > 1:
            return
        context.log.info(
            "serves http://%s/ (page), /stream.ts, /stream.mjpeg and /snapshot.jpg; %s",
            address,
            "open to programs of this machine"
            if not self._reaches_further()
            else "open to everyone who reaches this address and has the token; not encrypted",
        )
        if said:
            context.log.info(said)

    def _reaches_further(self) -> bool:
        """Whether others than this machine's programs may come: names are listed for a proxy."""
        return not self.params.address.loopback or bool(self.params.hosts)

    def _token(self) -> tuple[str | None, str]:
        """The token to demand, and what to say of it, once."""
        if self.params.token is not None or not self._reaches_further():
            return self.params.token, ""
        token, path = kept_token()
        where = f"kept in {path}" if path is not None else "good until this node ends"
        return token, f"the token is {token} ({where}): viewers add ?token=... to the address"

    def _site(self, connections: Connections, token: str | None) -> tuple[Any, Any]:
        from nodes.web.app import Site
        from nodes.web.guard import Guard
        from nodes.web.peers import Peers

        assert self._hub is not None
        assert self._programme is not None
        assert self._server is not None
        programme = self._programme
        peers = Peers(
            hub=self._hub,
            address=self._server.address,
            origin=time.time(),
            sound=lambda: self.takes_audio() and programme.may_have_sound,
            log=self.context.log,
        )
        site = Site(
            hub=self._hub,
            connections=connections,
            peers=peers,
            health=self._health,
            log=self.context.log,
        )
        names = [*self.params.hosts]
        return Guard(site.app(), names=names, token=token), peers.end_all

    def process(self, frame: Frame) -> None:
        """Encodes one picture for those who watch.

        Raises:
            SinkError: the encoder or the server failed.
        """
        assert self._server is not None
        assert self._programme is not None
        self._server.check()
        now = time.monotonic()
        self.context.delivered(frame.header)
        self._taken += 1
        if len(self._came) > 1 and self._is_away(now):
            self._came.clear()  # an outage is no distance between two pictures
        self._came.append(now)
        self._programme.picture(frame)
        self._age_ms = frame.header.age_ns(time.monotonic_ns()) / 1e6
        held, self._last = self._last, frame.hold()
        if held is not None:
            held.release()

    def audio(self, packet: Packet) -> None:
        """Takes one packet of sound; one without data announces the format.

        Raises:
            SinkError: the encoder failed.
        """
        if self._programme is not None and self.takes_audio():
            self._programme.audio(packet)

    def idle(self) -> float | None:
        """Serves wishes of viewers while no picture comes; says when to be called again.

        Raises:
            SinkError: the encoder or the server failed.
        """
        if self._server is None or self._programme is None or self._hub is None:
            return None
        self._server.check()
        if self._last is None:
            return _LOOK
        from nodes.encoder.stand_in import spacing

        now = time.monotonic()
        latest, away = self._came[-1], self._is_away(now)
        shown = self._drawn(self._last) if away and self.params.idle == "slate" else self._last
        if self._hub.wants_snapshot:
            self._programme.snapshot(shown)
        due = self._shown_at + spacing(self._interval(), device=False)
        if away and self.params.idle != "nothing" and now >= due:
            self._shown_at = now
            if self._programme.again(shown, self._last.header, now - latest):
                self.context.count(Count.FILLED)
        return _LOOK

    def _interval(self) -> float:
        """Seconds between two pictures, as usual; 0 before it is known."""
        if len(self._came) < 2:
            return 0.0
        return (self._came[-1] - self._came[0]) / (len(self._came) - 1)

    def _is_away(self, now: float) -> bool:
        """Whether the next picture is late, as usual distances go."""
        from nodes.encoder.stand_in import patience

        return now - self._came[-1] >= patience(self._interval())

    def _drawn(self, last: Frame) -> Frame:
        """The slate, of the last picture's size."""
        from nodes.encoder.stand_in import draw_slate

        size = (last.width, last.height)
        if self._slate is None or (self._slate.width, self._slate.height) != size:
            self._slate = draw_slate(self.params.slate, self._slate_image, *size)
        return self._slate

    def finish(self) -> None:
        """The stream has ended: all viewers get the end of it."""
        self.close()

    def close(self) -> None:
        """Stops serving; nothing of it is left."""
        held, self._last = self._last, None
        if held is not None:
            held.release()
        server, self._server = self._server, None
        if server is not None:
            server.stop()
        if self._programme is not None:
            self._programme.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.params!r})"  # which leaves the token out

    def _health(self) -> dict[str, Any]:
        """What `/health` says; called in the server's thread."""
        assert self._hub is not None
        came = list(self._came)
        now = time.monotonic()
        silent = now - came[-1] if came else None
        rate = 0.0
        if len(came) > 1 and silent is not None and silent < 1:
            rate = (len(came) - 1) / (came[-1] - came[0]) if came[-1] > came[0] else 0.0
        return {
            "frames": self._taken,
            "fps": round(rate, 2),
            "viewers": self._hub.counts(),
            "age_ms": round(self._age_ms, 1) if came else None,
            "silent_s": round(silent, 2) if silent is not None else None,
        }
