"""Plays one source: packets in, pictures with their times and sound out."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import count as count_up
from typing import TYPE_CHECKING, Any, Final

from nodes.decoder import jitter
from nodes.decoder.address import parse_address
from nodes.decoder.connection import Connection
from nodes.decoder.decoding import Decoding
from nodes.decoder.faults import Fault, Reason, explain_blindness, explain_reading
from nodes.decoder.feed import Stopped
from nodes.decoder.input import Input, open_input
from nodes.decoder.interleaving import in_time_order
from nodes.decoder.pace import at_own_speed, convert, limit
from nodes.decoder.render import Renderer, Shot
from nodes.decoder.sound import Sound
from nodes.decoder.timeline import Seen, Timeline
from nodes.rate import exact_rate
from streamer import AudioFormat, Context, Count, Frame, Packet

if TYPE_CHECKING:
    from nodes.decoder import DecoderParams
    from nodes.decoder.feed import Item
    from nodes.decoder.hwaccel import Acceleration

_LOOK_FOR_SOUND: Final = 250
"""Packets that are read ahead, at most, to learn the format of AAC in ADTS."""
_CUT: Final = 0.5
"""Seconds by which a file may end before the time that it announced."""
_SEGMENT: Final = 30.0
"""Seconds that a picture waits at most where pictures come in segments."""


class Player:
    """Opens a source, and yields its frames and audio packets.

    Args:
        params: the decoder's parameters.
        context: the node's.
        live: whether newest wins over complete.
    """

    def __init__(self, params: DecoderParams, context: Context, *, live: bool) -> None:
        self._params = params
        self._context = context
        self._address = parse_address(params.url)
        self._connection = Connection(self._address, params, context, self._open_input)
        # A file played at its own speed is live for others, but it can be read ahead.
        self._sent = live and not self._connection.is_file
        self._source: Input | None = None
        self._renderer: Renderer | None = None
        self._acceleration: Acceleration | None = None
        self._timeline: Timeline | None = None
        self._smoothing = jitter.Smoothing(0.0)
        self._sound: AudioFormat | None = None
        self._shown = 0

    def open(self) -> None:
        """Opens the source, and says what to expect of it; a live one may still be away.

        Raises:
            SourceError: it cannot be opened.
            ParameterError: the pixel format is none that the next nodes take, or the GPU's decoder
                is asked for and cannot be had.
        """
        self._renderer = Renderer(self._context, self._params.format)
        if self._params.hwaccel == "cuda" or self._context.gpu is not None:
            from nodes.decoder.hwaccel import choose

            self._acceleration = choose(self._params.hwaccel, self._context)
        try:
            source = self._source = self._connection.open()
        except Stopped:
            return
        if source is None or self._params.loop or self._sent:
            return
        frames = source.frames
        if self._params.fps is not None and source.seconds and not source.still:
            frames = max(1, round(source.seconds * exact_rate(self._params.fps)))
        self._context.expect(frames=frames, seconds=source.seconds)

    def close(self) -> None:
        """Closes the source."""
        self._connection.close()
        if self._renderer is not None:
            self._renderer.close()

    def play(self) -> Iterator[Frame | Packet]:
        """Frames and audio packets up to the end, or to the end of the run.

        Raises:
            SourceError: the source broke off for good, or held nothing that could be decoded.
        """
        params, stopping = self._params, self._context.stopping
        still = self._source is not None and self._source.still
        shots = self._passes(self._source)
        self._source = None
        if not self._connection.is_file:
            shots = jitter.smoothed(
                shots,
                self._smoothing,
                stopping,
                alive=self._context.alive,
                changed=self._smoothing_changed,
            )
        if params.fps is not None and self._address.kind != "pictures" and not still:
            change = limit if self._sent else convert
            shots = change(shots, exact_rate(params.fps), self._context.drop)
        if params.realtime and not self._address.is_live:
            shots = at_own_speed(shots, stopping, alive=self._context.alive)
        renderer = self._renderer
        assert renderer is not None, "open() comes first"
        try:
            for shot in shots:
                yield shot if isinstance(shot, Packet) else renderer.frame(shot)
        except Stopped:
            return

    @property
    def _follows(self) -> bool:
        """Whether the source sends at its own pace and is followed, not read as it is needed."""
        return self._sent or (self._connection.returns and not self._params.loop)

    def _open_input(self) -> Input:
        return open_input(
            self._address,
            self._params,
            live=self._sent,
            audio=self._context.wants_audio,
            acceleration=self._acceleration,
        )

    def _passes(self, source: Input | None) -> Iterator[Shot | Packet]:
        """Plays the source as often as it begins: once, in a loop, or whenever it comes back."""
        if source is None and self._context.stopping.is_set():
            return
        while True:
            if source is None:
                source = self._connection.again()
            before = self._shown
            try:
                for item in self._pass(source):
                    yield item
                    if source.still and self._params.loop and isinstance(item, Shot):
                        yield from self._repeat(item)
                if self._shown == before:
                    if self._left_to_the_cpu():
                        self._connection.close()
                        source = self._connection.open()
                        continue
                    said = f"{self._address.shown} holds no picture that can be decoded"
                    if self._params.hwaccel == "cuda":
                        said += " by the GPU; hwaccel auto has the CPU decode what that cannot"
                    raise Fault(said, Reason.CODEC)
                self._end(source)
            except Fault as fault:
                self._connection.lost(fault)
                source = None
            else:
                if not self._params.loop:
                    return
                self._connection.close()
            del source
            # A container and its streams hold each other, so only the collector frees a decoder's
            # buffers; it sees how few objects they are, not how large.
            gc.collect()
            source = self._connection.open() if self._params.loop else None

    def _left_to_the_cpu(self) -> bool:
        """Gives up the GPU's decoder, where there is one that may be done without.

        FFmpeg itself changes over only where the decoder refuses the stream, and not where it
        takes it and then fails with each picture, for want of memory, say.
        """
        if self._acceleration is None or self._acceleration.required:
            return False
        self._acceleration = None
        self._context.log.warning(
            "%s: the GPU's decoder gives no picture of it: the CPU decodes from now on",
            self._address.shown,
        )
        return True

    def _repeat(self, shot: Shot) -> Iterator[Shot]:
        """A still picture, for ever."""
        rate = exact_rate(self._params.fps or 25.0)
        for tick in count_up(1):
            if self._context.stopping.is_set():
                raise Stopped
            yield replace(shot, pts=tick, time_base=1 / rate, duration=1)

    def _pass(self, source: Input) -> Iterator[Shot | Packet]:
        """What comes from one opening of the source to its end.

        Raises:
            Fault: it broke off.
        """
        waiting = self._connection.backlog() if self._follows else []
        timeline = self._begun(source, waiting)
        segmented = source.is_segmented
        self._smoothing.reset(self._bound(segmented), always=segmented)
        sound = None
        if source.audio is not None:
            sound = Sound(source.audio, self._context.name, timeline)
        stale = waiting[-1][1] if waiting and not segmented else 0
        decoding = Decoding(
            source, timeline, self._context, stale_ns=stale, acceleration=self._acceleration
        )
        packets = self._connection.packets(after=lambda: float(timeline.end))
        if sound is not None and self._connection.is_file:
            packets = in_time_order(packets, source.video)
        ahead = deque[Any]()
        try:
            if sound is not None:
                ahead = self._learn(packets, sound)
                announcement = self._announced(sound)
                if announcement is None:
                    sound = None
                elif not (self._params.loop and self._shown):
                    yield announcement
            while (item := ahead.popleft() if ahead else next(packets, None)) is not None:
                packet, arrival = item
                if packet.stream is not source.video:
                    if sound is not None:
                        yield from sound.passed(packet, arrival)
                    continue
                for shot in decoding.pictures(packet, arrival):
                    self._shown += 1
                    if not self._connection.is_file:
                        self._connection.live()
                    yield shot
                if self._connection.returns and decoding.blind() > self._params.timeout:
                    self._left_to_the_cpu()  # when it is opened again
                    raise explain_blindness(self._address, self._params.timeout)
        finally:
            decoding.finish()
            if sound is not None and sound.skipped:
                self._context.log.warning("%d audio packets were left out", sound.skipped)

    def _begun(self, source: Input, waiting: list[Item]) -> Timeline:
        """The timeline, set to what begins now."""
        if self._timeline is None:
            self._timeline = Timeline(
                start=source.start,
                live=self._follows,
                broadcast=source.is_broadcast,
                mended=lambda: self._context.count(Count.MENDED),
            )
        elif self._params.loop:
            self._timeline.again(source.start or Fraction(0))
        else:
            self._timeline.resume(source.start, _seen(source, waiting))
        return self._timeline

    def _bound(self, segmented: bool) -> float:
        """Seconds that a picture may wait for smoothness."""
        if self._params.jitter != "auto":
            return self._params.jitter
        if not self._follows:
            return 0.0
        return _SEGMENT if segmented else jitter.AUTO

    def _smoothing_changed(self, on: bool) -> None:
        if on:
            bound = self._smoothing.bound
            self._connection.live(f"it sends in bursts: pictures wait up to {bound:g} s")
        else:
            self._connection.live("it sends smoothly: pictures do not wait")

    def _announced(self, sound: Sound) -> Packet | None:
        """The announcement of sound that can go on; None where it has to be left out."""
        log = self._context.log
        if sound.format is None:
            log.warning("the sound's format cannot be found; it is left out")
            return None
        if self._sound is None and self._shown:
            log.warning("sound began after the pictures and is left out")
            return None
        if self._sound not in (None, sound.format):
            log.warning(
                "the sound is %s now, not %s as before, and is left out: outputs cannot change it",
                _said(sound.format),
                _said(self._sound),
            )
            return None
        self._sound = sound.format
        return sound.announcement()

    def _learn(self, packets: Iterator[Item], sound: Sound) -> deque[Item]:
        """Reads ahead until the format of the sound is known."""
        ahead: deque[Item] = deque()
        while sound.format is None and len(ahead) < _LOOK_FOR_SOUND:
            item = next(packets, None)
            if item is None:
                break
            ahead.append(item)
            if item[0].stream.type == "audio":
                sound.learn(item[0])
        return ahead

    def _end(self, source: Input) -> None:
        """Tells whether an end is one.

        Raises:
            Fault: the source has no end of its own.
        """
        assert self._timeline is not None
        end = float(self._timeline.end)
        is_live = self._connection.returns or self._address.is_live
        if source.endless and is_live and not self._address.is_local:
            raise explain_reading(None, self._address, after=end)
        if self._params.loop or source.still or source.seconds is None:
            return
        if not self._sent and end < source.seconds - _CUT:
            text = (
                f"it ends at {end:.1f} s of {source.seconds:.1f} s: the file is cut off or broken"
            )
            self._context.note(text)
            self._context.log.warning(text)


def _seen(source: Input, waiting: list[Item]) -> list[Seen]:
    """The first packets that will be shown or heard, with the times that they have of their own."""
    seen, keyed = [], False
    for packet, arrival in waiting:
        picture = packet.stream is source.video
        keyed = keyed or (picture and packet.is_keyframe)
        own = packet.pts if packet.pts is not None else packet.dts
        if own is not None and packet.time_base and (keyed or not picture):
            seen.append(Seen(picture, own * packet.time_base, arrival))
    return seen


def _said(sound: AudioFormat | None) -> str:
    return "none" if sound is None else f"{sound.codec}, {sound.sample_rate} Hz, {sound.layout}"
