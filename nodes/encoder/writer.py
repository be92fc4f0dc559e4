"""One container from its header to its trailer: pictures and sound go in, packets are muxed."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, cast

import av
from av.codec.context import Flags
from av.error import FFmpegError
from av.video.frame import PictureType

from nodes.encoder.codecs import Setup
from nodes.encoder.failures import failure, reason
from nodes.encoder.outputs import MOV, MP4, Output
from nodes.encoder.pictures import Converter, Shape
from nodes.encoder.sound import Sound, add_sound
from nodes.encoder.timing import Clock
from streamer import AudioFormat, Frame, Header, Packet, SinkError

if TYPE_CHECKING:
    from av.video.stream import VideoStream

_USUAL_RATE: Final = Fraction(30)
# Times of these containers are coarser than a source's may be.
_COARSE: Final = {
    "matroska": Fraction(1, 1000),
    "webm": Fraction(1, 1000),
    "flv": Fraction(1, 1000),
    "mpegts": Fraction(1, 90000),
    "rtsp": Fraction(1, 90000),
}
_PATIENCE: Final = (Fraction(2), Fraction(1, 2))  # seconds to wait for announced sound: filed, live
_FRAGMENT: Final = "1000000"  # microseconds: what a sudden death may lose


class Writer:
    """Writes one container.

    Args:
        output: where to; its url is the one of this part.
        setup: the video encoder.
        first: header of the first picture.
        origin: seconds of the source's clock that become zero.
        sound: announced format of the sound, or None for none.
        muxer_options: of the user.
        start_number: number of the first picture of an image sequence.
        log: for what a user should know.
        delivered: called with the header of every picture whose packet has been muxed.

    Raises:
        SinkError: the output or the encoder cannot be opened.
    """

    def __init__(
        self,
        output: Output,
        setup: Setup,
        first: Header,
        *,
        origin: Fraction,
        sound: AudioFormat | None,
        muxer_options: dict[str, str],
        start_number: int,
        log: logging.Logger,
        delivered: Callable[[Header], None],
    ) -> None:
        self.output = output
        self.size = (first.width, first.height)
        self._setup = setup
        self._delivered = delivered
        self._log = log
        self._announced = sound if output.container.sound is not None else None
        self._held: deque[av.Packet[Any]] | None = deque()  # pictures before the header
        self._early: deque[tuple[Fraction, av.Packet[Any]]] = deque()  # sound before its picture
        self._pending: dict[int, Header] = {}
        self._next_key: Fraction | None = None
        self._shown_until = 0
        self._sound: Sound | None = None
        self._ended = False
        self._starts_late = output.container in (MP4, MOV) and output.kind == "file"
        self._patience = _PATIENCE[output.live]
        rate = setup.rate or _rate_of(first)
        self.clock = Clock(first.time_base, origin, 1 / rate)
        shape = Shape.of(first, setup.formats, codec=setup.codec)
        self._converter = Converter(shape, frees=setup.frees)
        options = {**_muxer_options(output, start_number), **muxer_options}
        try:
            self._container = av.open(
                output.url, "w", format=output.container.muxer, container_options=options
            )
        except FFmpegError as error:
            raise failure(output, "open", error) from error
        try:
            self._video = cast("VideoStream", self._container.add_stream(setup.codec, rate=rate))
            self._encoder = self._video.codec_context
            setup.context(
                self._encoder,
                width=shape.width,
                height=shape.height,
                format=shape.format,
                rate=rate,
            )
            shape.tag(self._encoder)
            self._encoder.time_base = self._video.time_base = first.time_base
            self._open_encoder(shape)
        except (FFmpegError, ValueError) as error:
            self.abandon()
            raise failure(output, "open", error) from error
        except BaseException:
            self.abandon()
            raise
        self.clock.limit_to(_COARSE.get(output.container.muxer, first.time_base))
        if self._announced is None:
            self._start(None)

    def _start(self, first: Packet | None) -> None:
        """Writes the header, with a stream of sound if its first packet has come."""
        held, self._held = self._held, None
        assert held is not None
        try:
            if first is not None:
                self._sound = add_sound(
                    self._container, first, self.output.container, log=self._log
                )
            self._container.start_encoding()
        except (FFmpegError, ValueError) as error:
            self.abandon()
            raise failure(self.output, "open", error) from error
        except BaseException:
            self.abandon()
            raise
        self._mux_pictures(held)

    def _open_encoder(self, shape: Shape) -> None:
        if self._setup.live and self.output.container.muxer == "rtsp":
            # Players that join later find the parameters in the session's description.
            self._encoder.flags |= Flags.global_header
        try:
            self._encoder.open()
        except FFmpegError as error:
            raise SinkError(
                f"the codec {self._setup.codec} does not take pictures of "
                f"{shape.width}x{shape.height} {shape.format}: {reason(error)}; "
                "make them smaller, or choose another codec"
            ) from error

    def picture(self, frame: Frame) -> None:
        """Encodes a picture and muxes what the encoder gives; keeps no view of the frame.

        Raises:
            SinkError: the output cannot be written to.
        """
        header = frame.header
        pts, duration = self.clock.picture(header.pts, header.time_base, header.duration)
        picture = self._converter.convert(frame)
        picture.pts, picture.duration = pts, duration
        picture.time_base = self.clock.time_base
        if self._is_key(pts * self.clock.time_base):
            picture.pict_type = PictureType.I
        self._pending[pts] = header
        self._shown_until = pts + duration
        try:
            packets = self._encoder.encode(picture)
        except FFmpegError as error:
            raise failure(self.output, "encode for", error) from error
        self._mux_pictures(packets)
        if self._held is not None and (pts + duration) * self.clock.time_base > self._patience:
            self._log.warning("the announced sound does not come and is left out")
            self._start(None)

    def audio(self, packet: Packet) -> None:
        """Muxes a packet of sound; what would be heard before the start is left out.

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
            self._mux_sound(self._sound.packets(packet, at))

    def close(self) -> list[Header]:
        """Muxes everything held back and writes the trailer.

        Returns:
            headers of pictures that the encoder took but never gave back.

        Raises:
            SinkError: the output cannot be written to.
        """
        if self._ended:
            return []
        self._ended = True
        try:
            packets = self._encoder.encode(None)
            if packets and self.output.container in (MP4, MOV):
                self._reach_end(packets[-1])
            self._mux_pictures(packets)
            if self._held is not None:
                self._start(None)
            if self._sound is not None:
                self._mux_sound(self._sound.flush())
            while self._early:
                self._mux(self._early.popleft()[1])
            self._container.close()
        except FFmpegError as error:
            self.abandon()
            raise failure(self.output, "finish", error) from error
        except SinkError:
            self.abandon()
            raise
        lost, self._pending = list(self._pending.values()), {}
        return lost

    def abandon(self) -> None:
        """Closes the output as well as can be, after an error; never raises."""
        self._ended = True
        try:
            self._container.close()
        except (FFmpegError, ValueError):
            # The first error has been told; this one says the same.
            pass

    def _reach_end(self, last: av.Packet[Any]) -> None:
        """Lengthens the packet decoded last so that the film ends with the picture shown last.

        MP4 ends where that packet does, even if B-frames made it one that is shown earlier.
        """
        if last.pts is not None:
            last.duration = max(last.duration or 0, self._shown_until - last.pts)

    def _is_key(self, at: Fraction) -> bool:
        if self._next_key is not None and at < self._next_key:
            return False
        # Measured from the picture itself, so that a gap is not followed by a crowd of keyframes.
        self._next_key = at + self._setup.interval
        return True

    def _mux_pictures(self, packets: Iterable[av.Packet[Any]]) -> None:
        for packet in packets:
            if self._held is not None:
                self._held.append(packet)
                continue
            # Muxing turns the packet's times into the container's.
            header = self._pending.pop(packet.pts, None) if packet.pts is not None else None
            at = (packet.dts or 0) * self.clock.time_base
            packet.stream = self._video
            self._mux(packet)
            if header is not None:
                self._delivered(header)
            while self._early and self._early[0][0] <= at:
                self._mux(self._early.popleft()[1])

    def _mux_sound(self, packets: Iterable[av.Packet[Any]]) -> None:
        """Muxes sound at once if live; else after the picture before it has left the encoder.

        An encoder that looks ahead gives pictures late. FFmpeg would wait for them only so long
        and then write out of order, which some containers refuse.
        """
        for packet in packets:
            if self.output.live:
                self._mux(packet)
            else:
                self._early.append(((packet.dts or 0) * packet.time_base, packet))

    def _mux(self, packet: av.Packet[Any]) -> None:
        try:
            self._container.mux_one(packet)
        except FFmpegError as error:
            raise failure(self.output, "write to", error) from error


def _rate_of(header: Header) -> Fraction:
    if header.duration > 0:
        rate = 1 / (header.duration * header.time_base)
        if rate <= 1000:
            return rate.limit_denominator(1001)
    return _USUAL_RATE


def _muxer_options(output: Output, start_number: int) -> dict[str, str]:
    """Options that keep latency low, and what is written playable at any moment."""
    muxer = output.container.muxer
    # How long pictures wait for sound that does not come, in microseconds.
    options = {"flush_packets": "1", "max_interleave_delta": "300000" if output.live else "1000000"}
    if muxer in ("mp4", "mov"):
        if output.kind == "file":
            # Fragments while it is written, an ordinary file in the end: playable after a sudden
            # death, and seekable everywhere. Delaying the header lets it hold the edit list.
            flags = "hybrid_fragmented+frag_keyframe+delay_moov+default_base_moof"
        else:
            flags = "frag_keyframe+empty_moov+default_base_moof"
        options |= {"movflags": flags, "frag_duration": _FRAGMENT}
    elif muxer in ("matroska", "webm"):
        options["cluster_time_limit"] = "1000"
        if output.live:
            options["live"] = "1"
    elif muxer == "flv" and output.live:
        options["flvflags"] = "no_duration_filesize"
    elif muxer == "rtsp":
        options["rtsp_transport"] = "tcp"
    elif muxer == "image2":
        options = {"start_number": str(start_number)}
        if "%" not in output.url:
            options = {"update": "1", "atomic_writing": "1"}
    elif muxer == "v4l2":
        options = {}
    return options
