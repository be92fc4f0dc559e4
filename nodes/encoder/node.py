"""The encoder node."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Final

from nodes.encoder.checks import check
from nodes.encoder.outputs import Output, parse
from nodes.encoder.params import EncoderParams
from nodes.encoder.parts import first_free_number, part_path, pictures_in
from streamer import Drop, Frame, Header, Packet, ParameterError, Sink

if TYPE_CHECKING:
    from nodes.encoder.codecs import Setup
    from nodes.encoder.writer import Writer
    from streamer import AudioFormat

_MOST_WAITING: Final = 4096  # packets of sound before the first picture: over a minute
_LEAD: Final = Fraction(1, 10)  # seconds that sound may start before the picture


class Encoder(Sink[EncoderParams]):
    """Encodes pictures and sound to a file, a network output, images or a virtual camera.

    Pictures keep the times of their source at any frame rate; the output starts at zero. A file
    whose pictures change size goes on in `name-2.mp4`, as it does when the process was killed and
    started again; a network output is opened anew. Odd sides get one more column or row, a copy
    of the last, where the codec halves its chroma. A picture counts as delivered once its packet
    is muxed.
    """

    Params = EncoderParams
    accepts: ClassVar[tuple[str, ...]] = ("yuv420p", "nv12", "rgb24", "bgr24", "gray", "rgba")
    deferred: ClassVar[bool] = True

    def __init__(self, params: EncoderParams) -> None:
        super().__init__(params)
        self._output: Output = parse(params.url)
        self._setup: Setup | None = None
        self._writer: Writer | None = None
        self._audio: AudioFormat | None = None
        self._waiting: deque[Packet] = deque(maxlen=_MOST_WAITING)
        self._part = 0
        self._pictures = 0
        self._start_number = 1
        self._late_sound = False
        self._mended = 0

    def takes_audio(self) -> bool:
        """Whether this output can hold sound and is asked to."""
        return self.params.audio == "auto" and self._output.container.sound is not None

    def open(self) -> None:
        """Checks the output and the codec, and finds the encoder that works here.

        Raises:
            SinkError: no such folder, no permission, an unknown host, no such device.
            ParameterError: an unknown codec or option, or a file that must not be overwritten.
        """
        if self._output.kind == "null":
            return
        check(self._output, overwrite=self.params.overwrite or self.context.incarnation > 1)
        from nodes.encoder.codecs import choose

        self._setup = choose(self._output, self.params, gpu=self.context.gpu)
        self.context.log.info("%s is encoded by %s", self._output.shown, self._setup.codec)
        if self.context.incarnation > 1 and self._output.kind == "images":
            assert self._output.path is not None
            self._start_number = pictures_in(self._output.path) + 1

    def process(self, frame: Frame) -> None:
        """Encodes one picture.

        Raises:
            SinkError: the output cannot be opened or written to.
        """
        if self._output.kind == "null":
            self.context.delivered(frame.header)
            return
        header = frame.header
        if self._writer is None or self._writer.size != (header.width, header.height):
            self._begin(header)
        assert self._writer is not None
        self._writer.picture(frame)
        self._pictures += 1

    def audio(self, packet: Packet) -> None:
        """Takes one packet of sound; one without data announces the format.

        Raises:
            SinkError: the output cannot be written to.
        """
        if not self.takes_audio():
            return
        if not packet.data:
            self._announced(packet.audio)
        elif self._writer is None:
            self._waiting.append(packet)
        else:
            self._writer.audio(packet)

    def finish(self) -> None:
        """Writes what is held back and closes the output.

        Raises:
            SinkError: the output cannot be written to.
        """
        if self._output.kind != "null" and not self._pictures:
            self.context.log.warning("no picture came; %s was not written", self._output.shown)
        self._end()

    def close(self) -> None:
        """Closes what is open; does nothing after `finish`."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abandon()

    def _announced(self, audio: AudioFormat) -> None:
        if self._audio is None and self._writer is not None:
            if not self._late_sound:
                self.context.log.warning("sound began after the pictures and is left out")
                self._late_sound = True
            return
        self._audio = audio

    def _begin(self, header: Header) -> None:
        """Opens the next part for pictures of this size."""
        from nodes.encoder.writer import Writer

        before = self._writer
        self._end()
        output = self._next_output(header, before)
        assert self._setup is not None
        self._writer = Writer(
            output,
            self._setup,
            header,
            origin=self._origin(header),
            sound=self._audio,
            muxer_options={name: str(value) for name, value in self.params.muxer_options.items()},
            start_number=self._start_number + self._pictures,
            log=self.context.log,
            delivered=self.context.delivered,
        )
        while self._waiting:
            self._writer.audio(self._waiting.popleft())

    def _next_output(self, header: Header, before: Writer | None) -> Output:
        output = self._output
        self._part += 1
        if before is not None:
            was, now = f"{before.size[0]}x{before.size[1]}", f"{header.width}x{header.height}"
            self.context.log.warning("the size changed from %s to %s", was, now)
        if output.kind != "file" or output.path is None:
            return output
        if self.context.incarnation > 1:
            self._part = first_free_number(output.path)
        if self._part == 1:
            return output
        path = part_path(output.path, self._part)
        if not self.params.overwrite and path.exists():
            raise ParameterError(
                f"the file {path} exists already and overwrite is false; remove it"
            )
        self.context.log.warning("the recording goes on in %s", path)
        return replace(output, url=str(path), path=path)

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
        if writer.output.kind == "file":
            self.context.log.info("%s is complete", writer.output.shown)
