"""Audio packets as they are, beside the pictures: nothing is decoded."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError

from streamer import AudioFormat, Packet

if TYPE_CHECKING:
    from av.audio.stream import AudioStream

    from nodes.decoder.timeline import Timeline

MAX_PACKET: Final = 1 << 20
MAX_EXTRADATA: Final = 1 << 16


class Sound:
    """Passes on the packets of one audio stream.

    AAC of a broadcast (ADTS) carries its format in every packet and none beside; it is brought to
    the form that all containers can hold. Its format is known with the first packet only.

    Args:
        stream: FFmpeg's audio stream.
        name: of the source node.
        timeline: common to picture and sound.
    """

    def __init__(self, stream: AudioStream, name: str, timeline: Timeline) -> None:
        self._stream = stream
        self._name = name
        self._timeline = timeline
        self._unpack: BitStreamFilterContext | None = None
        context = stream.codec_context
        self._time_base = stream.time_base or Fraction(1, context.sample_rate or 1000)
        self.skipped = 0
        """packets that had no place in time or were too large"""
        self.format: AudioFormat | None = None
        """what a sink must know; None until the first packet of AAC in ADTS was seen"""
        extradata = bytes(context.extradata or b"")
        if context.codec.canonical_name == "aac" and not extradata:
            self._unpack = BitStreamFilterContext("aac_adtstoasc", stream)
        else:
            self.format = self._describe(extradata)

    def announcement(self) -> Packet:
        """The packet without data that announces the format."""
        assert self.format is not None, "the format is not known yet"
        return Packet(
            stream=self._name,
            pts=0,
            time_base=self._time_base,
            duration=0,
            data=b"",
            audio=self.format,
        )

    def learn(self, packet: Any) -> None:
        """Looks at a packet, without using it up, for the format that it carries."""
        if self.format is None and packet.size:
            head = bytes(memoryview(packet)[:7])
            if len(head) == 7:
                self.format = self._describe(asc_of_adts(head))

    def passed(self, packet: Any, arrival: int) -> list[Packet]:
        """What goes on for one of FFmpeg's packets; nothing for the empty one at the end.

        Args:
            packet: FFmpeg's.
            arrival: when it was read, CLOCK_MONOTONIC nanoseconds.
        """
        if not packet.size:
            return []
        self.learn(packet)
        duration = packet.duration or 0
        pts = self._timeline.sound(packet.pts, self._time_base, duration, arrival)
        if packet.is_discard and pts is not None and pts + 2 * duration < 0:
            return []  # cut away by an edit list; the one just before the start primes decoders
        data = self._unpacked(packet)
        if pts is None or not data or len(data) > MAX_PACKET or self.format is None:
            self.skipped += 1
            return []
        return [
            Packet(
                stream=self._name,
                pts=pts,
                time_base=self._time_base,
                duration=duration,
                data=data,
                audio=self.format,
            )
        ]

    def _unpacked(self, packet: Any) -> bytes:
        """What a packet holds without its header; nothing where that is damaged."""
        if self._unpack is None:
            return bytes(packet)
        try:
            return b"".join(bytes(part) for part in self._unpack.filter(packet))
        except FFmpegError:
            self._unpack.flush()
            return b""

    def _describe(self, extradata: bytes) -> AudioFormat:
        context = self._stream.codec_context
        return AudioFormat(
            codec=context.codec.canonical_name,
            sample_rate=context.sample_rate,
            layout=context.layout.name,
            extradata=extradata if len(extradata) <= MAX_EXTRADATA else b"",
            frame_size=context.frame_size or 0,
        )


def asc_of_adts(header: bytes) -> bytes:
    """The AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1) that an ADTS header stands for.

    Args:
        header: the first 7 bytes of an ADTS frame (ISO/IEC 13818-7, 6.2).

    Returns:
        two bytes, or none if it is no ADTS header or the channels are laid out in the frame.
    """
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return b""
    profile, frequency = header[2] >> 6, header[2] >> 2 & 0xF
    channels = (header[2] & 1) << 2 | header[3] >> 6
    if not channels:
        return b""
    bits = (profile + 1) << 11 | frequency << 7 | channels << 3
    return bits.to_bytes(2, "big")
