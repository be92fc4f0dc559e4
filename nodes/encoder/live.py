"""A live output on a network: goes on when the server goes away, and when pictures do."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from nodes.encoder.codecs import Setup
from nodes.encoder.connection import Connection, Phase
from nodes.encoder.mux import muxer_options
from nodes.encoder.order import SOUND, VIDEO, Due, SoundGate
from nodes.encoder.outputs import Output
from nodes.encoder.params import EncoderParams
from nodes.encoder.pictures import Converter, Shape
from nodes.encoder.sound import Sound, make_sound
from nodes.encoder.stand_in import StandIn
from nodes.encoder.timing import Clock
from nodes.encoder.tracks import Encoding, Track
from nodes.encoder.video import VideoEncoder, rate_of, time_base_of
from nodes.encoder.writer import COARSE
from streamer import AudioFormat, Context, Count, Drop, Frame, Header, Packet, SinkError

if TYPE_CHECKING:
    import av
    from av.video.frame import VideoFrame

_LEAD: Final = Fraction(1, 10)
"""seconds that sound may be sent ahead of its picture"""
_PATIENCE: Final = 2.0
"""seconds that sound waits for a picture that does not come, where pictures come at their pace"""
_LEAVE: Final = 1.5
"""seconds that pictures of a file still wait for a connection once the run is to end"""
_MOST_WAITING: Final = 1024
"""packets of sound that are kept until the first picture of a connection"""


class LiveOutput:
    """See the module.

    Where pictures come from a live source, nothing here waits for the server: without a
    connection they are dropped. Pictures of a file wait instead, and only those that were under
    way when the connection broke are lost, and those for which there is none when the run is
    stopped. But other outputs of the file wait along with them, and that no longer than a server
    may take to answer: from then on this output goes without, until it has a connection again.

    Args:
        output: the server's address.
        setup: the video encoder.
        params: of the node.
        context: of the node.
    """

    def __init__(
        self,
        output: Output,
        setup: Setup,
        params: EncoderParams,
        *,
        context: Context,
    ) -> None:
        self._output, self._setup, self._params = output, setup, params
        self._context = context
        options = {name: str(value) for name, value in params.muxer_options.items()}
        self._connection = Connection(
            output,
            options={**muxer_options(output), **options},
            timeout=params.timeout,
            give_up=params.give_up,
            context=context,
        )
        mode = params.stand_in if context.live else "nothing"
        self._stand_in = StandIn(mode, params.slate, device=False)
        self._size = (0, 0)
        self._header: Header | None = None
        self._converter: Converter | None = None
        self._clock: Clock | None = None
        self._video: VideoEncoder | None = None
        self._pending: dict[int, Header] = {}
        self._announced: AudioFormat | None = None
        self._sound: Sound | None = None
        self._early: deque[Packet] = deque(maxlen=_MOST_WAITING)
        self._gate = SoundGate(lead=_LEAD, patience=None)
        self._begun: Fraction | None = None
        self._leave_until: float | None = None
        self._waits_since: float | None = None
        self._said = False
        self._connection.start()

    def picture(self, frame: Frame) -> None:
        """Sends a picture, or counts why it is not sent.

        Raises:
            SinkError: the output has failed for good.
        """
        header = frame.header
        self._connection.look()
        if (header.width, header.height) != self._size:
            self._reshape(header)
        assert self._converter is not None
        if not self._context.live:
            self._wait()
        self._try()
        assert self._clock is not None
        pts, duration = self._clock.picture(header.pts, header.time_base, header.duration)
        picture = self._converter.convert(frame)
        self._stand_in.came(picture, self._size, time.monotonic())
        if self._connection.phase is not Phase.OPEN:
            self._connection.drop()
        elif self._connection.congested:
            self._context.drop(Drop.CONGESTED)
        else:
            self._send(picture, pts, duration, header)

    def announce(self, audio: AudioFormat) -> None:
        """Takes the format of the sound; a new one begins a new connection."""
        before, self._announced = self._announced, audio
        if before is not None and before != audio and self._connection.phase is Phase.OPEN:
            self._context.log.warning("the format of the sound changed: connecting anew")
            self._end()
            self._connection.restart()

    def audio(self, packet: Packet) -> None:
        """Sends a packet of sound, when its picture is there; without a connection it is lost.

        Raises:
            SinkError: the output has failed for good.
        """
        if packet.audio != self._announced:
            self.announce(packet.audio)
        self._connection.look()
        if self._connection.phase is Phase.OPEN and self._begun is not None:
            self._hear(packet)
            self._let_sound()
        elif not self._context.live or self._connection.phase is not Phase.AWAY:
            self._early.append(packet)

    def idle(self) -> float | None:
        """Looks after the connection, and shows something in place of what does not come.

        Returns:
            seconds after which it wants to be called again.

        Raises:
            SinkError: the output has failed for good.
        """
        self._connection.look()
        self._try()
        again = [seconds for seconds in (self._connection.patience(), self._fill()) if seconds]
        return min(again, default=None)

    def finish(self) -> None:
        """Sends the rest and ends the connection.

        Raises:
            SinkError: there never was one.
        """
        if self._connection.phase is Phase.OPEN:
            self._end()
        self._connection.close()
        self.close()
        if self._header is not None and not self._connection.ever:
            raise SinkError(self._connection.unreached())

    def close(self) -> None:
        """Ends the connection at once."""
        self._connection.abandon()
        self._let_go()

    # ---- connecting ----------------------------------------------------------------------------

    def _wait(self) -> None:
        """Waits for a connection that takes pictures, for pictures that can wait, too."""
        while True:
            self._try()
            if self._connection.phase is Phase.OPEN:
                self._waits_since, self._said = None, False
                if not self._connection.congested:
                    return
            elif self._taking_leave() or self._holding_up():
                return
            self._context.alive()
            self._connection.look(min(self._connection.patience() or 0.05, 0.05))

    def _holding_up(self) -> bool:
        """Whether other outputs have waited along with this one for long enough."""
        now = time.monotonic()
        if self._waits_since is None or self._connection.starting:
            self._waits_since = now
        if now - self._waits_since < self._params.timeout:
            return False
        if not self._said:
            self._said = True
            what = "wait for it" if self._context.alone else "go to the other outputs without it"
            self._context.log.warning(
                "%s is not there: pictures of the file %s", self._output.shown, what
            )
        return not self._context.alone

    def _taking_leave(self) -> bool:
        """Whether the run has been stopped, and nothing is waited for any more."""
        if not self._context.stopping.is_set():
            return False
        now = time.monotonic()
        if self._leave_until is None:
            self._leave_until = now + _LEAVE
        return now >= self._leave_until

    def _try(self) -> None:
        """Asks for a connection if it is time to."""
        if self._converter is None or not self._connection.may_try:
            return
        assert self._header is not None
        self._let_go()
        self._video = VideoEncoder(
            self._output,
            self._setup,
            self._converter.shape,
            rate=rate_of(self._header, self._setup),
            time_base=self._time_base,
        )
        tracks = [self._video.track]
        self._gate = SoundGate(lead=_LEAD, patience=_PATIENCE if self._context.live else None)
        if self._announced is not None and self._output.container.sound is not None:
            announcement = Packet(
                stream="", pts=0, time_base=self._time_base, duration=0, data=b"",
                audio=self._announced,
            )  # fmt: skip
            self._sound = make_sound(announcement, self._output.container, log=self._context.log)
            if self._sound is not None:
                stream = self._sound.stream
                tracks.append(stream if isinstance(stream, Track) else stream.track)
        self._connection.ask(tracks)

    def _let_go(self) -> None:
        """Frees the encoders of a connection that is no more."""
        encodings = (self._video, self._sound.stream if self._sound is not None else None)
        self._video = self._sound = self._begun = None
        for _ in self._pending:  # the encoder never gave them back
            self._connection.drop()
        self._pending.clear()
        for encoding in encodings:
            if isinstance(encoding, Encoding):
                encoding.close()

    def _end(self) -> None:
        """Sends what the encoders hold back."""
        assert self._video is not None
        if self._begun is None:
            return
        self._send_packets(self._video.flush())
        if self._sound is not None:
            self._put_sound(self._sound.flush())
        for due in self._gate.flush():
            self._connection.send(due.stream, due.packet, None)

    def _reshape(self, header: Header) -> None:
        if self._size != (0, 0):
            was, now = f"{self._size[0]}x{self._size[1]}", f"{header.width}x{header.height}"
            self._context.log.warning("the size changed from %s to %s: connecting anew", was, now)
        if self._connection.phase is Phase.OPEN:
            self._end()
        if self._connection.phase in (Phase.OPEN, Phase.CONNECTING):
            self._connection.restart()
        self._size, self._header = (header.width, header.height), header
        setup = self._setup
        shape = Shape.of(
            header, setup.formats, codec=setup.codec, surfaces=setup.surfaces is not None
        )
        # A picture that may be shown again must outlast its frame.
        self._converter = Converter(shape, frees=self._setup.frees and not self._stand_in.active)
        if self._clock is None:
            origin = header.pts * header.time_base
            rate = rate_of(header, self._setup)
            self._clock = Clock(time_base_of(header, self._setup, rate), origin, 1 / rate)
            self._clock.limit_to(COARSE.get(self._output.container.muxer, header.time_base))

    @property
    def _time_base(self) -> Fraction:
        assert self._clock is not None
        return self._clock.time_base

    # ---- pictures and sound --------------------------------------------------------------------

    def _send(self, picture: VideoFrame, pts: int, duration: int, header: Header | None) -> None:
        assert self._video is not None
        assert self._clock is not None
        if header is not None:
            self._pending[pts] = header
        self._send_packets(self._video.encode(picture, pts, duration))
        if self._begun is None:
            self._begun = pts * self._clock.time_base
            while self._early:
                self._hear(self._early.popleft())
        self._let_sound()

    def _send_packets(self, packets: Iterable[av.Packet[Any]]) -> None:
        for packet in packets:
            header = self._pending.pop(packet.pts, None) if packet.pts is not None else None
            self._connection.send(VIDEO, packet, header)

    def _hear(self, packet: Packet) -> None:
        """Takes sound that is not before the first picture of the connection."""
        if self._sound is None or self._clock is None or self._begun is None or not packet.data:
            return
        at = self._clock.seconds(packet.pts, packet.time_base)
        if at + packet.duration * packet.time_base > self._begun:
            self._put_sound(self._sound.packets(packet, at))

    def _put_sound(self, packets: Iterable[av.Packet[Any]]) -> None:
        now = time.monotonic()
        for packet in packets:
            self._gate.put(packet, (packet.dts or 0) * packet.time_base, now)

    def _let_sound(self) -> None:
        assert self._clock is not None
        due: Due
        for due in self._gate.due(self._clock.last, time.monotonic()):
            self._connection.send(SOUND, due.packet, None)

    def _fill(self) -> float | None:
        """Shows something in place of a picture, if it is time to; seconds until the next time."""
        if self._clock is None or self._connection.phase is not Phase.OPEN:
            return None
        now, interval = time.monotonic(), self._clock.usual
        wait = self._stand_in.wait(interval, now)
        if wait or wait is None:
            return wait
        spacing = self._stand_in.spacing(interval)
        if self._connection.congested:
            return spacing
        assert self._converter is not None
        picture, since = self._stand_in.show(self._converter.shape, now)
        pts, duration = self._clock.fill(since, spacing)
        self._send(picture, pts, duration, None)
        self._context.count(Count.FILLED)
        return min(spacing, 0.002)
