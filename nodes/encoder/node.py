"""The encoder node."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Final

from nodes.encoder.checks import check
from nodes.encoder.outputs import Output, parse
from nodes.encoder.params import EncoderParams, byte_count
from nodes.encoder.parts import Names, pictures_in
from streamer import Count, Drop, Frame, Header, Packet, Sink, SinkError

if TYPE_CHECKING:
    from nodes.encoder.codecs import Setup
    from nodes.encoder.live import LiveOutput
    from nodes.encoder.recording import Recording
    from nodes.encoder.stand_in import StandIn
    from nodes.encoder.writer import Target, Writer
    from streamer import AudioFormat

_MOST_WAITING: Final = 4096  # packets of sound before the first picture: over a minute
_LEAD: Final = Fraction(1, 10)  # seconds that sound may start before the picture
_PATIENCE: Final = (Fraction(1), Fraction(1, 2))
"""seconds of pictures that wait for sound which has stopped: of files, of live sources"""


class Encoder(Sink[EncoderParams]):
    """Encodes pictures and sound to a file, a network output, images or a virtual camera.

    Pictures keep the times of their source at any frame rate; the output starts at zero. A file
    whose pictures change size goes on in `name-2.mp4`, as it does when the process was killed and
    started again; a network output is connected anew. A server that goes away is tried again until
    it is back. Odd sides get one more column or row, a copy of the last, where the codec halves its
    chroma. A picture counts as delivered once its packet is muxed.
    """

    Params = EncoderParams
    memory: ClassVar[tuple[str, ...]] = ("cuda", "host")
    accepts: ClassVar[tuple[str, ...]] = ("yuv420p", "nv12", "rgb24", "bgr24", "gray", "rgba")
    deferred: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = (
        "nodes.encoder.codecs",
        "nodes.encoder.live",
        "nodes.encoder.recording",
    )

    def __init__(self, params: EncoderParams) -> None:
        super().__init__(params)
        self._output: Output = parse(params.url)
        self._setup: Setup | None = None
        self._live: LiveOutput | None = None
        self._recording: Recording | None = None
        self._writer: Writer | None = None
        self._stand_in: StandIn | None = None
        self._audio: AudioFormat | None = None
        self._waiting: deque[Packet] = deque(maxlen=_MOST_WAITING)
        self._pictures = 0
        self._hardware = False
        self._start_number = 1
        self._late_sound = False

    @classmethod
    def claims(cls, params: EncoderParams) -> Mapping[str, str]:
        """The network address, or the virtual camera."""
        claim = parse(params.url).claim
        return {"url": claim} if claim is not None else {}

    def takes_audio(self) -> bool:
        """Whether this output can hold sound and is asked to."""
        return self.params.audio == "auto" and self._output.container.sound is not None

    def open(self) -> None:
        """Checks the output and the codec, and finds the encoder that works here.

        Raises:
            SinkError: no such folder, no permission, an unknown host, no such device, a disk
                that is full.
            ParameterError: an unknown codec or option, or a file that must not be overwritten.
        """
        output, again = self._output, self.context.incarnation > 1
        if output.kind == "null":
            return
        check(output, self.params, again=again)
        from nodes.encoder.codecs import choose

        live = self.context.live
        self._setup = choose(output, self.params, gpu=self.context.gpu, brief=live, surfaces=True)
        self._hardware = self._setup.codec.endswith("_nvenc")
        how = ""
        if self._hardware and self.context.gpu is not None:
            where = "host" if self._setup.surfaces is None else f"gpu {self.context.gpu}'s"
            how = f" from {where} memory"
        self.context.log.info("%s is encoded by %s%s", output.shown, self._setup.codec, how)
        if output.kind == "network":
            from nodes.encoder.live import LiveOutput

            self._live = LiveOutput(output, self._setup, self.params, context=self.context)
        elif output.kind == "file":
            self._recording = self._new_recording(again=again)
        elif output.kind == "device":
            from nodes.encoder.stand_in import StandIn

            mode = self.params.stand_in if self.context.live else "nothing"
            self._stand_in = StandIn(mode, self.params.slate, device=True)
        elif again:
            assert output.path is not None
            self._start_number = pictures_in(output.path) + 1

    def process(self, frame: Frame) -> None:
        """Encodes one picture.

        Raises:
            SinkError: the output cannot be opened or written to.
        """
        header = frame.header
        if self._live is not None:
            self._live.picture(frame)
        elif self._output.kind == "null":
            self.context.delivered(header)
        else:
            if self._writer is None or self._writer.size != (header.width, header.height):
                self._begin(header)
            assert self._writer is not None
            self._writer.picture(frame)
        self._pictures += 1
        if self._hardware:
            self.context.count(Count.HARDWARE)

    def idle(self) -> float | None:
        """Looks after a connection, and shows something in place of what does not come.

        Raises:
            SinkError: the output has failed for good.
        """
        if self._live is not None:
            return self._live.idle()
        if self._writer is None:
            return None
        wait, filled = self._writer.fill(time.monotonic())
        if filled:
            self.context.count(Count.FILLED)
        return wait

    def audio(self, packet: Packet) -> None:
        """Takes one packet of sound; one without data announces the format.

        Raises:
            SinkError: the output cannot be written to.
        """
        if not self.takes_audio():
            return
        if self._live is not None:
            if packet.data:
                self._live.audio(packet)
            else:
                self._live.announce(packet.audio)
        elif not packet.data:
            self._announced(packet.audio)
        elif self._writer is None:
            self._waiting.append(packet)
        else:
            self._writer.audio(packet)

    def finish(self) -> None:
        """Writes what is held back and closes the output.

        Raises:
            SinkError: the output cannot be written to, was never reached, or had no room for all.
        """
        if self._output.kind != "null" and not self._pictures:
            self.context.log.warning("no picture came; %s was not written", self._output.shown)
        if self._live is not None:
            self._live.finish()
        self._end()
        if self._recording is not None and self._recording.reproach:
            raise SinkError(self._recording.reproach)

    def close(self) -> None:
        """Closes what is open; does nothing after `finish`."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abandon()
        if self._live is not None:
            self._live.close()

    def _announced(self, audio: AudioFormat) -> None:
        if self._audio is None and self._writer is not None:
            if not self._late_sound:
                self.context.log.warning("sound began after the pictures and is left out")
                self._late_sound = True
            return
        self._audio = audio

    def _begin(self, header: Header) -> None:
        """Begins a stretch of pictures of this size."""
        from nodes.encoder.writer import Writer

        before = self._writer
        if before is not None:
            was, now = f"{before.size[0]}x{before.size[1]}", f"{header.width}x{header.height}"
            self.context.log.warning("the size changed from %s to %s", was, now)
        self._end()
        assert self._setup is not None
        seconds = self.params.segment_seconds
        self._writer = Writer(
            self._output,
            self._target(),
            self._setup,
            header,
            origin=self._origin(header),
            sound=self._audio,
            patience=_PATIENCE[self.context.live],
            every=Fraction(seconds).limit_denominator(1000) if seconds is not None else None,
            log=self.context.log,
            delivered=self.context.delivered,
            stand_in=self._stand_in,
        )
        while self._waiting:
            self._writer.audio(self._waiting.popleft())

    def _target(self) -> Target:
        if self._recording is not None:
            return self._recording
        from nodes.encoder.single import Single

        number = self._start_number + self._pictures
        return Single(self._output, self._muxer_options, start_number=number)

    def _new_recording(self, *, again: bool) -> Recording:
        from nodes.encoder.disk import Room
        from nodes.encoder.recording import Recording

        path, params = self._output.path, self.params
        assert path is not None
        seconds = params.segment_seconds
        segmented = seconds is not None or params.segment_megabytes is not None
        names = Names(path, segmented=segmented, anew=again, overwrite=params.overwrite)
        return Recording(
            self._output,
            names=names,
            room=Room(names.folder, byte_count(params.keep_free)),
            options=self._muxer_options,
            megabytes=params.segment_megabytes,
            context=self.context,
        )

    @property
    def _muxer_options(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.params.muxer_options.items()}

    def _origin(self, header: Header) -> Fraction:
        """Seconds of the source that become zero: the first picture's, or those of the sound."""
        start = header.pts * header.time_base
        if not self._waiting or self.context.live:
            return start
        heard = self._waiting[0].pts * self._waiting[0].time_base
        # Codecs of sound begin a little early; a film that begins in the dark is another thing.
        return heard if heard < start - _LEAD else start

    def _end(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        lost = writer.close()
        if lost:
            self.context.log.warning("the encoder gave back no packet for %d pictures", len(lost))
            self.context.drop(Drop.FAILED, len(lost))
        clock = writer.clock
        if clock.mended or clock.jumps:
            self.context.log.warning(
                "%d picture times did not grow and were moved; the clock went back %d times",
                clock.mended,
                clock.jumps,
            )
