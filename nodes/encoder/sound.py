"""Sound of the source in the output: copied unchanged where the container allows, else encoded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import av
import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.codec.codec import UnknownCodecError
from av.codec.context import Flags
from av.error import FFmpegError

from nodes.encoder.adts import strip_adts
from nodes.encoder.outputs import Container
from nodes.encoder.tracks import Encoding, Track, nowhere, wants_global_header
from streamer import AudioFormat, Packet, SinkError

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.stream import AudioStream
    from av.container.output import OutputContainer

TOLERANCE: Final = Fraction(20, 1000)
"""Seconds by which sound may be off before silence is put in or samples are taken out."""

_LONGEST_SILENCE: Final = 30  # seconds; over a longer gap times jump, and nothing is encoded
_LAYOUTS: Final = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 8: "7.1"}
_ENCODED_LAYOUTS: Final = ("mono", "stereo", "5.1")
_BITS_PER_CHANNEL: Final = 80_000
_AAC_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)


class Sound(Protocol):
    """One stream of sound, for any container of a kind.

    Attributes:
        stream: what a container is told of it.
    """

    stream: Track | Encoding

    def packets(self, packet: Packet, at: Fraction) -> Iterator[av.Packet[Any]]:
        """Packets to mux for one packet of the source that is heard from `at` seconds on."""
        ...

    def flush(self) -> Iterator[av.Packet[Any]]:
        """Packets that were held back."""
        ...


def make_sound(
    first: Packet,
    container: Container,
    *,
    log: logging.Logger,
    most_channels: int | None = None,
) -> Sound | None:
    """The stream of sound for outputs of this kind.

    Args:
        first: first packet of the sound, with its format; or the announcement, which tells less:
            AAC in ADTS frames shows in the packet only, and is encoded anew without it.
        container: what the output can hold.
        log: for what a listener should know.
        most_channels: sound of more channels is mixed down to stereo; None for any number.

    Returns:
        None if this sound cannot be decoded here and is left out.

    Raises:
        SinkError: the encoder of the container's sound does not open.
    """
    audio = first.audio
    codec = _canonical(audio.codec)
    extradata = audio.extradata
    if codec == "aac" and not extradata:
        described = strip_adts(first.data)
        extradata = described.config if described is not None else b""
    describable = bool(extradata) or codec not in ("aac", "vorbis", "flac", "opus", "alac")
    channels = av.AudioLayout(layout_name(audio.layout)).nb_channels
    fits = most_channels is None or channels <= most_channels
    if codec in container.copies and describable and fits and _encoder_of(codec) is not None:
        return _Copied(codec, audio, extradata)
    try:
        decoder = _decoder(codec, audio)
    except (UnknownCodecError, FFmpegError, ValueError) as error:
        log.warning("the sound (%s) cannot be decoded here and is left out: %s", codec, error)
        return None
    assert container.sound is not None
    log.info("the sound (%s) is encoded anew as %s", codec, container.sound.removeprefix("lib"))
    layout = layout_name(audio.layout)
    if not fits or layout not in _ENCODED_LAYOUTS:
        layout = "stereo"
    global_header = wants_global_header(container.muxer)
    return _Encoded(decoder, container.sound, audio, layout, log, global_header=global_header)


def add_sound(
    output: OutputContainer,
    first: Packet,
    container: Container,
    *,
    log: logging.Logger,
    most_channels: int | None = None,
) -> Sound | None:
    """Adds a stream of sound to one container whose header is not written yet.

    Args:
        output: where to.
        first: as for `make_sound`.
        container: what the output can hold.
        log: for what a listener should know.
        most_channels: as for `make_sound`.

    Returns:
        None if this sound cannot be decoded here and is left out.

    Raises:
        SinkError: the encoder of the container's sound does not open.
    """
    sound = make_sound(first, container, log=log, most_channels=most_channels)
    return None if sound is None else _InOne(sound, output)


class _InOne:
    """Sound whose packets belong to one container."""

    def __init__(self, sound: Sound, output: OutputContainer) -> None:
        self._sound = sound
        self.stream = sound.stream
        self._added = sound.stream.add_to(output)

    def packets(self, packet: Packet, at: Fraction) -> Iterator[av.Packet[Any]]:
        return self._stamped(self._sound.packets(packet, at))

    def flush(self) -> Iterator[av.Packet[Any]]:
        return self._stamped(self._sound.flush())

    def _stamped(self, packets: Iterator[av.Packet[Any]]) -> Iterator[av.Packet[Any]]:
        for packet in packets:
            packet.stream = self._added
            yield packet


def _canonical(name: str) -> str:
    """The codec's own name, of a name of a decoder such as `mp3float`."""
    try:
        return av.Codec(name, "r").canonical_name
    except UnknownCodecError:
        return name


def _encoder_of(codec: str) -> str | None:
    for name in (f"lib{codec}", "libmp3lame" if codec == "mp3" else codec):
        try:
            av.Codec(name, "w")
        except UnknownCodecError:
            continue
        return name
    return None


def layout_name(layout: str) -> str:
    """A layout that has a name: `2 channels` is taken for stereo."""
    named = av.AudioLayout(layout)
    return _LAYOUTS.get(named.nb_channels, named.name) if "channels" in layout else named.name


class _Copied:
    """The source's packets, unchanged."""

    def __init__(self, codec: str, audio: AudioFormat, extradata: bytes) -> None:
        encoder = _encoder_of(codec)
        assert encoder is not None
        self.stream: Track | Encoding = Track(
            encoder=encoder,
            time_base=Fraction(1, audio.sample_rate),
            extradata=extradata,
            sample_rate=audio.sample_rate,
            layout=layout_name(audio.layout),
        )
        self._rate = audio.sample_rate
        self._last: int | None = None
        self._framed = codec == "aac" and not audio.extradata

    def packets(self, packet: Packet, at: Fraction) -> Iterator[av.Packet[Any]]:
        data = packet.data
        if self._framed and (described := strip_adts(data)) is not None:
            data = described.frame
        made = av.Packet(data)
        pts = round(at * self._rate)
        if self._last is not None and pts <= self._last:
            pts = self._last + 1
        self._last = pts
        made.time_base = Fraction(1, self._rate)
        made.pts = made.dts = pts
        made.duration = round(packet.duration * packet.time_base * self._rate)
        made.is_keyframe = True
        yield made

    def flush(self) -> Iterator[av.Packet[Any]]:
        yield from ()


def _decoder(codec: str, audio: AudioFormat) -> AudioCodecContext:
    if av.Codec(codec, "r").type != "audio":
        raise ValueError(f"{codec} is no codec of sound")
    decoder = cast("AudioCodecContext", av.CodecContext.create(codec, "r"))
    decoder.sample_rate = audio.sample_rate
    decoder.layout = layout_name(audio.layout)
    if audio.extradata:
        decoder.extradata = audio.extradata
    decoder.open()
    return decoder


class _Encoded:
    """The source's sound decoded, resampled and encoded, kept in step with the clock."""

    def __init__(
        self,
        decoder: AudioCodecContext,
        encoder: str,
        audio: AudioFormat,
        layout: str,
        log: logging.Logger,
        *,
        global_header: bool,
    ) -> None:
        self._decoder = decoder
        self._log = log
        rate = 48000
        if encoder == "aac" and audio.sample_rate in _AAC_RATES:
            rate = audio.sample_rate
        stream = cast("AudioStream", nowhere().add_stream(encoder, rate=rate))
        self._encoder = stream.codec_context
        self._encoder.layout = layout
        self._encoder.bit_rate = _BITS_PER_CHANNEL * av.AudioLayout(layout).nb_channels
        self._encoder.time_base = stream.time_base = Fraction(1, rate)
        if global_header:
            self._encoder.flags |= Flags.global_header
        try:
            self._encoder.open()
        except FFmpegError as error:
            raise SinkError(f"the encoder of sound {encoder} does not open: {error}") from error
        self.stream: Track | Encoding = Encoding(stream)
        self._rate, self._layout = rate, layout
        self._format = self._encoder.format.name
        self._frame_size = self._encoder.frame_size or 1024
        self._resampler = AudioResampler(self._format, layout, rate)
        self._heard: tuple[str, str, int] | None = None  # what the resampler was begun with
        self._fifo = AudioFifo()
        self._written: int | None = None  # next sample to go into the fifo, on the output's clock
        self._read = 0
        self._broken = 0

    def packets(self, packet: Packet, at: Fraction) -> Iterator[av.Packet[Any]]:
        coded = av.Packet(packet.data)
        coded.pts = coded.dts = round(at * self._decoder.sample_rate)
        coded.time_base = Fraction(1, self._decoder.sample_rate)
        try:
            frames = self._decoder.decode(coded)
        except FFmpegError:
            # The gap is filled with silence when the next packet comes.
            self._broken += 1
            if self._broken == 1:
                self._log.warning("a packet of sound is corrupt; silence is heard instead")
            return
        for frame in frames:
            start = at if frame.pts is None else frame.pts * coded.time_base
            at = start + Fraction(frame.samples, frame.sample_rate)
            yield from self._encode_frame(frame, start)

    def _encode_frame(self, frame: AudioFrame, start: Fraction) -> Iterator[av.Packet[Any]]:
        frame.pts = None
        heard = (frame.format.name, frame.layout.name, frame.sample_rate)
        if heard != self._heard:
            # A resampler takes one kind alone, and passes on unseen what began as it should end.
            self._resampler = AudioResampler(self._format, self._layout, self._rate)
            self._heard = heard
        for made in self._resampler.resample(frame):
            at = round(start * self._rate)
            if self._written is not None and at - self._written > _LONGEST_SILENCE * self._rate:
                yield from self._jump(at)
            self._queue(made, at)
            start += Fraction(made.samples, self._rate)
        yield from self._drain(partial=False)

    def _jump(self, at: int) -> Iterator[av.Packet[Any]]:
        """Lets the times of the output jump, so that the next sample is that of the time `at`."""
        size = self._frame_size
        # A frame that is not full would be the encoder's last.
        if rest := -self._fifo.samples % size:
            self._append(self._silence(rest))
        yield from self._drain(partial=False)
        # Encoders look ahead: their last packet before the gap holds the first samples after it.
        self._read = self._written = at - size
        self._append(self._silence(size))

    def _queue(self, frame: AudioFrame, at: int) -> None:
        """Appends samples where the clock wants them: after silence, or shortened."""
        due = self._written if self._written is not None else max(at, 0)
        if self._written is None:
            self._read = self._written = due
        missing = at - due
        if abs(missing) <= TOLERANCE * self._rate:
            # Keep the samples whole: rounding and the resampler's delay are no gaps. Before the
            # start there is no output to hold them.
            skip = -missing if at < 0 else 0
        else:
            skip = max(0, -missing)
            if missing > 0:
                self._append(self._silence(missing))
        if skip >= frame.samples:
            return
        self._append(frame if skip == 0 else self._tail(frame, skip))

    def _append(self, frame: AudioFrame) -> None:
        assert self._written is not None
        frame.pts = None
        self._fifo.write(frame)
        self._written += frame.samples

    def _silence(self, samples: int) -> AudioFrame:
        frame = AudioFrame(format=self._format, layout=self._layout, samples=samples)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate = self._rate
        return frame

    def _tail(self, frame: AudioFrame, skip: int) -> AudioFrame:
        array: Any = frame.to_ndarray()
        channels = frame.layout.nb_channels
        offset = skip if frame.format.is_planar else skip * channels
        tail = AudioFrame.from_ndarray(
            np.ascontiguousarray(array[:, offset:]), self._format, self._layout
        )
        tail.sample_rate = self._rate
        return tail

    def _drain(self, *, partial: bool) -> Iterator[av.Packet[Any]]:
        while self._written is not None:
            frame = self._fifo.read(self._frame_size, partial=partial)
            if frame is None:
                return
            frame.pts, frame.time_base = self._read, Fraction(1, self._rate)
            self._read += frame.samples
            yield from self._encoder.encode(frame)

    def flush(self) -> Iterator[av.Packet[Any]]:
        try:
            for frame in self._decoder.decode(None):
                for made in self._resampler.resample(frame):
                    if self._written is not None:
                        self._append(made)
        except FFmpegError:
            self._broken += 1
        for made in self._resampler.resample(None):
            if self._written is not None:
                self._append(made)
        yield from self._drain(partial=True)
        yield from self._encoder.encode(None)
