"""One stretch of pictures of one size, with their sound, to a file, images or a device."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, Protocol

from nodes.encoder.codecs import Setup
from nodes.encoder.mux import Addable
from nodes.encoder.order import SOUND, VIDEO, Due, Interleaver
from nodes.encoder.outputs import MOV, MP4, Output
from nodes.encoder.pictures import Converter, Shape
from nodes.encoder.sound import Sound, make_sound
from nodes.encoder.stand_in import StandIn
from nodes.encoder.timing import Clock
from nodes.encoder.tracks import Encoding
from nodes.encoder.video import VideoEncoder, rate_of, time_base_of
from streamer import AudioFormat, Frame, Header, Packet

if TYPE_CHECKING:
    import av

# Times of these containers are coarser than a source's may be.
COARSE: Final = {
    "matroska": Fraction(1, 1000),
    "webm": Fraction(1, 1000),
    "flv": Fraction(1, 1000),
    "mpegts": Fraction(1, 90000),
    "rtsp": Fraction(1, 90000),
    "whip": Fraction(1, 90000),
}
_PATIENCE: Final = Fraction(2)
"""seconds to wait for the first packet of announced sound"""


class Target(Protocol):
    """Where packets go: one container, or one after the other."""

    def start(self, tracks: list[Addable], video: VideoEncoder) -> None:
        """Begins with these streams."""
        ...

    def write(self, due: Due, header: Header | None) -> bool:
        """Writes a packet; False if it is dropped, and counted so."""
        ...

    def close(self) -> None:
        """Ends properly."""
        ...

    def abandon(self) -> None:
        """Ends as well as can be, after an error; never raises."""
        ...


class Writer:
    """Encodes pictures and sound, and writes packets in order.

    Args:
        output: where to; tells the container.
        target: takes the packets.
        setup: the video encoder.
        first: header of the first picture.
        origin: seconds of the source's clock that become zero.
        sound: announced format of the sound, or None for none.
        patience: seconds of pictures that wait for sound which has stopped.
        every: seconds between two keyframes at which a recording may go on in another file.
        log: for what a user should know.
        delivered: called with the header of every picture whose packet has been muxed.
        stand_in: what is shown while nothing comes.

    Raises:
        SinkError: the output or the encoder cannot be opened.
    """

    def __init__(
        self,
        output: Output,
        target: Target,
        setup: Setup,
        first: Header,
        *,
        origin: Fraction,
        sound: AudioFormat | None,
        patience: Fraction,
        every: Fraction | None,
        log: logging.Logger,
        delivered: Callable[[Header], None],
        stand_in: StandIn | None = None,
    ) -> None:
        self.output = output
        self.size = (first.width, first.height)
        self._target = target
        self._delivered = delivered
        self._log = log
        self._announced = sound if output.container.sound is not None else None
        self._held: deque[av.Packet[Any]] | None = deque()  # pictures before the header
        self._pending: dict[int, Header] = {}
        self._sound: Sound | None = None
        self._ended = False
        self._shown_until = 0
        self._starts_late = output.container in (MP4, MOV)
        self._patience = patience
        self._stand_in = stand_in
        rate = rate_of(first, setup)
        self.clock = Clock(time_base_of(first, setup, rate), origin, 1 / rate)
        shape = Shape.of(
            first, setup.formats, codec=setup.codec, surfaces=setup.surfaces is not None
        )
        self._converter = Converter(shape, frees=setup.frees and not (stand_in and stand_in.active))
        self._video = VideoEncoder(
            output, setup, shape, rate=rate, time_base=self.clock.time_base, every=every
        )
        self.clock.limit_to(COARSE.get(output.container.muxer, first.time_base))
        if self._announced is None:
            self._start(None)

    def _start(self, first: Packet | None, *, until: Fraction | None = None) -> None:
        """Begins the output, with a stream of sound if its first packet has come."""
        held, self._held = self._held, None
        assert held is not None
        tracks: list[Addable] = [self._video]
        if first is not None:
            self._sound = make_sound(first, self.output.container, log=self._log)
            if self._sound is not None:
                tracks.append(self._sound.stream)
        self._order = Interleaver(sound=self._sound is not None, patience=self._patience)
        self._target.start(tracks, self._video)
        self._put_pictures(held, until=until)

    def picture(self, frame: Frame) -> None:
        """Encodes a picture and writes what the encoder gives; keeps no view of the frame.

        Raises:
            SinkError: the output cannot be written to.
        """
        header = frame.header
        pts, duration = self.clock.picture(header.pts, header.time_base, header.duration)
        self._pending[pts], self._shown_until = header, pts + duration
        picture = self._converter.convert(frame)
        if self._stand_in is not None:
            self._stand_in.came(picture, self.size, time.monotonic())
        self._put_pictures(self._video.encode(picture, pts, duration))
        if self._held is not None and (pts + duration) * self.clock.time_base > _PATIENCE:
            self._log.warning("the announced sound does not come and is left out")
            self._start(None)

    def fill(self, now: float) -> tuple[float | None, bool]:
        """Shows something in place of a picture that does not come, if it is time to.

        Args:
            now: seconds of CLOCK_MONOTONIC.

        Returns:
            seconds until it is to be called again, and whether something was shown.

        Raises:
            SinkError: the output cannot be written to.
        """
        if self._stand_in is None:
            return None, False
        interval = self.clock.usual
        wait = self._stand_in.wait(interval, now)
        if wait or wait is None:
            return wait, False
        picture, since = self._stand_in.show(self._converter.shape, now)
        spacing = self._stand_in.spacing(interval)
        self._put_pictures(self._video.encode(picture, *self.clock.fill(since, spacing)))
        return spacing, True

    def audio(self, packet: Packet) -> None:
        """Writes a packet of sound; what would be heard before the start is left out.

        Raises:
            SinkError: the output cannot be written to.
        """
        at = self.clock.seconds(packet.pts, packet.time_base)
        ends = at + packet.duration * packet.time_base
        # MP4 says by an edit list that playing starts later; others would shift everything.
        if ends < 0 or (ends == 0 and not self._starts_late):
            return
        if self._held is not None:
            self._start(packet)
        if self._sound is not None:
            self._put_sound(self._sound.packets(packet, at))

    def close(self) -> list[Header]:
        """Writes everything held back, and ends the output.

        Returns:
            headers of pictures that the encoder took but never gave back.

        Raises:
            SinkError: the output cannot be written to.
        """
        if self._ended:
            return []
        self._ended = True
        try:
            shown_until = self._shown_until * self.clock.time_base
            self._put_pictures(self._video.flush(), until=shown_until)
            if self._held is not None:
                self._start(None, until=shown_until)
            if self._sound is not None:
                self._put_sound(self._sound.flush())
            self._write(self._order.flush())
        except BaseException:
            self._target.abandon()
            raise
        self._target.close()
        self._let_go()
        lost, self._pending = list(self._pending.values()), {}
        return lost

    def abandon(self) -> None:
        """Ends the output as well as can be, after an error; never raises."""
        self._ended = True
        self._target.abandon()
        self._let_go()

    def _let_go(self) -> None:
        """Frees the encoders at once, and not when the collector comes by."""
        self._video.close()
        if self._sound is not None and isinstance(self._sound.stream, Encoding):
            self._sound.stream.close()

    def _put_pictures(
        self, packets: Iterable[av.Packet[Any]], *, until: Fraction | None = None
    ) -> None:
        packets = list(packets)
        last = packets[-1] if packets else None
        for packet in packets:
            if self._held is not None:
                self._held.append(packet)
            else:
                at = (packet.dts or 0) * self.clock.time_base
                self._write(
                    self._order.put(Due(VIDEO, packet, at, until if packet is last else None))
                )

    def _put_sound(self, packets: Iterable[av.Packet[Any]]) -> None:
        for packet in packets:
            at = (packet.dts or 0) * packet.time_base
            self._write(self._order.put(Due(SOUND, packet, at)))

    def _write(self, ready: Iterable[Due]) -> None:
        for due in ready:
            # Muxing turns the packet's times into the container's.
            pts = due.packet.pts if due.stream == VIDEO else None
            header = self._pending.pop(pts, None) if pts is not None else None
            if self._target.write(due, header) and header is not None:
                self._delivered(header)
