"""Small real nodes for tests of the runtime: they count, wait, crash and fail on purpose."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

import streamer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Ticks(streamer.Source["Ticks.Params"]):
    """Pictures whose pixels all hold the low byte of their number."""

    class Params(streamer.Params):
        count: int = 50
        fps: float = 0
        """pace in pictures a second; 0 as fast as possible"""
        live: bool = False
        width: int = 32
        height: int = 24
        step: int = 1
        """ticks of a 30th of a second from one picture to the next"""
        first_pts: int = 0
        grow_at: int = -1
        """picture from which on both sides are doubled"""
        corrupt_every: int = 0
        fail_at: int = -1
        retry_at: int = -1
        kill_at: int = -1
        hang_at: int = -1
        kill_at_end: bool = False
        standing: bool = False
        """says how it stands with a camera that is away twice, while pictures 10 to 29 come"""
        yields: str = "frames"
        """frames, own, array, twice"""
        sound: bool = False
        announced: bool = True

    @classmethod
    def is_live(cls, params: Any) -> bool:
        return bool(params.live)

    def frames(self) -> Iterator[Any]:
        p = self.params
        first_life = self.context.incarnation == 1
        audio = streamer.AudioFormat(codec="pcm_s16le", sample_rate=8000, layout="mono")

        def packet(pts: int, data: bytes) -> streamer.Packet:
            return streamer.Packet(
                stream=self.context.name,
                pts=pts,
                time_base=Fraction(1, 30),
                duration=1,
                data=data,
                audio=audio,
            )

        self.context.expect(frames=p.count)
        if p.sound and p.announced and self.context.wants_audio:
            yield packet(0, b"")
        start = time.monotonic()
        for number in range(p.count):
            if p.fps:
                delay = start + number / p.fps - time.monotonic()
                if delay > 0 and self.context.stopping.wait(delay):
                    return
            if number == p.fail_at:
                raise streamer.SourceError("the source broke as asked")
            if number == p.retry_at and first_life:
                raise streamer.SourceError("the camera went away", retry=True)
            if number == p.kill_at and first_life:
                die()
            if number == p.hang_at and first_life:
                time.sleep(3600)
            if p.standing:
                self._stand(number)
            if p.corrupt_every and number % p.corrupt_every == 0:
                self.context.drop(streamer.Drop.CORRUPT)
                continue
            scale = 2 if 0 <= p.grow_at <= number else 1
            width, height = p.width * scale, p.height * scale
            pts = p.first_pts + number * p.step
            if p.yields == "array":
                yield np.zeros((height, width, 3), np.uint8)
            if p.yields == "own":
                pixels = np.full((height, width, 3), number % 256, np.uint8)
                yield streamer.Frame.of(pixels, pts=pts, time_base=Fraction(1, 30))
                continue
            frame = self.context.allocate(width, height, pts=pts, time_base=Fraction(1, 30))
            frame.header.duration = p.step
            frame.numpy()[:] = number % 256
            yield frame
            if p.yields == "twice":
                yield frame
            if p.sound and self.context.wants_audio:
                yield packet(pts, bytes([number % 256]))
        if p.kill_at_end and first_life:
            die()

    def _stand(self, number: int) -> None:
        said = {
            0: (streamer.Status.CONNECTING, ""),
            1: (streamer.Status.LIVE, ""),
            10: (streamer.Status.STALLED, "nothing has come for a while"),
            15: (streamer.Status.RECONNECTING, "rtsp://me:pass@cam is refused"),
            20: (streamer.Status.LIVE, ""),
            25: (streamer.Status.STALLED, "nothing has come for a while"),
            29: (streamer.Status.LIVE, ""),
        }
        if number in said:
            self.context.status(*said[number])
        if number == 15:
            self.context.stopping.wait(0.6)  # however late the pictures are, it is away that long
        if number == 20:
            self.context.count(streamer.Count.MENDED, 3)


class Work(streamer.Transform["Work.Params"]):
    """Adds to every pixel, slowly if asked, and misbehaves at a given picture."""

    class Params(streamer.Params):
        add: int = 0
        seconds: float = 0
        mode: str = "slot"
        """what `process` does; see `_make`"""
        keep: int = 0
        """how many pictures the modes keep_in and keep_out keep"""
        skip_every: int = 0
        skip_from: int = 0
        skip_to: int = 0
        kill_at: int = -1
        kill_after: float = 0
        kill_always: bool = False
        raise_at: int = -1
        fail_at: int = -1
        bad_every: int = 0
        open_seconds: float = 0
        fail_open: str = ""
        fail_close: bool = False
        noise: int = 0
        """kilobytes written to standard error for each picture"""
        mute: bool = False
        hang_at: int = -1
        beat: bool = False
        """says while it hangs that it does not"""
        build_seconds: float = 0
        """that the first picture takes, when its memory has been asked for"""
        stuck_at: int = -1
        """picture at which it keeps Python's lock for ever"""
        raise_always: bool = False
        poison_every: int = 0
        """every so many pictures one ends the process that handles it, in every life"""
        linger: bool = False
        """a thread of its own keeps the process from ending"""

    kept: Any = None
    hung = False
    built = False

    def open(self) -> None:
        self.context.note("getting ready")
        self.pictures: deque[streamer.Frame] = deque()
        time.sleep(self.params.open_seconds)
        if self.params.fail_open:
            raise streamer.ParameterError(self.params.fail_open)
        if self.params.mute:
            os.close(1)
            os.close(2)
        if self.params.linger:
            threading.Thread(target=time.sleep, args=(3600,)).start()

    def process(self, frame: streamer.Frame) -> Any:
        p = self.params
        first_life = self.context.incarnation == 1
        if 0 <= p.kill_at <= frame.seq and (first_life or p.kill_always):
            time.sleep(p.kill_after)
            die()
        if p.poison_every and frame.seq % p.poison_every == p.poison_every - 1:
            signal.raise_signal(signal.SIGSEGV)  # to this thread, not just to any
        if 0 <= p.raise_at <= frame.seq and (first_life or p.raise_always):
            raise RuntimeError("an error that nobody foresaw")
        if 0 <= p.fail_at <= frame.seq:
            raise streamer.NodeError("the work cannot go on")
        if p.noise:
            sys.stderr.write(("x" * 99 + "\n") * (p.noise * 10))
        # Live pictures may be left out: from this one on, and once.
        if 0 <= p.hang_at <= frame.seq and first_life and not self.hung:
            self.hung = True
            for _ in range(40 if p.beat else 3600):
                time.sleep(0.1 if p.beat else 1)
                if p.beat:
                    self.context.alive()
        if 0 <= p.stuck_at <= frame.seq and first_life:
            ctypes.PyDLL(None).sleep(3600)  # a call that does not let other threads run
        if p.seconds:
            time.sleep(p.seconds)
        if p.build_seconds and not self.built:
            self.built = True
            self.context.allocate(frame.width, frame.height, like=frame.header)
            time.sleep(p.build_seconds)
        if p.skip_from <= frame.seq < p.skip_to:
            return None
        if p.skip_every and frame.seq % p.skip_every == 0:
            return None
        return self._make(frame, bad=bool(p.bad_every) and frame.seq % p.bad_every == 0)

    def _make(self, frame: streamer.Frame, *, bad: bool) -> Any:
        p = self.params
        pixels = frame.numpy()
        match p.mode:
            case "copy":
                return pixels + np.uint8(p.add)
            case "same":
                return frame
            case "float":
                return pixels / 2
            case "text":
                return "no picture"
            case "size":
                return self.context.allocate(0, 10, like=frame.header)
            case "keep_view":
                self.kept = pixels
                return pixels.copy()
            case "drop_twice":
                self.context.drop(streamer.Drop.RATE)
                self.context.drop(streamer.Drop.RATE)
            case "drop_and_return":
                self.context.drop(streamer.Drop.RATE)
                return pixels.copy()
            case "drop":
                self.context.drop(streamer.Drop.RATE)
                return None
            case "drop_and_fail":
                self.context.drop(streamer.Drop.RATE)
                raise streamer.FrameError("this picture is dropped already")
            case "bad_cycle" if bad:
                gc.disable()  # what follows must not depend on when the collector comes by
                error = streamer.FrameError("this picture is bad")
                error.kept = (error, pixels)  # type: ignore[attr-defined]
                raise error
            case "keep_in":
                self._keep(frame)
        out = self.context.allocate(frame.width, frame.height, like=frame.header)
        if bad:
            raise streamer.FrameError("this picture is bad, and its slot is forgotten")
        np.add(pixels, np.uint8(p.add), out=out.numpy())
        if p.mode == "keep_out":
            self._keep(out)
        return out

    def _keep(self, frame: streamer.Frame) -> None:
        for kept in self.pictures:
            pixels = kept.numpy()
            expected = (kept.seq + (self.params.add if self.params.mode == "keep_out" else 0)) % 256
            if pixels.min() != expected or pixels.max() != expected:
                raise streamer.NodeError(f"the kept picture {kept.seq} was overwritten")
            del pixels
        self.pictures.append(frame.hold())
        if len(self.pictures) > self.params.keep:
            self.pictures.popleft().release()

    def close(self) -> None:
        for kept in self.pictures:
            kept.release()
        if self.params.fail_close:
            raise RuntimeError("closing went wrong")


class Pair(streamer.Join["Pair.Params"]):
    """Stacks its inputs, one above the other; single pixels tell their numbers."""

    class Params(streamer.Params):
        kill_at: int = -1
        kill_after: float = 0

    def process(self, frames: Mapping[str, streamer.Frame | None]) -> Any:
        leader = next(iter(frames.values()))
        assert leader is not None
        if 0 <= self.params.kill_at <= leader.seq and self.context.incarnation == 1:
            time.sleep(self.params.kill_after)
            die()
        return np.vstack([frame.numpy() for frame in frames.values() if frame is not None])


class Tape(streamer.Sink["Tape.Params"]):
    """Writes a line for each picture: number, pts, size, lowest and highest pixel; then `end`."""

    class Params(streamer.Params):
        path: str
        seconds: float = 0
        kill_at: int = -1
        kill_after: float = 0
        kill_at_end: bool = False
        fail_at: int = -1
        fail_lives: int = 1000
        """how many of its processes fail"""
        fail_finish: str = ""
        """node or surprise"""
        finish_seconds: float = 0
        drop_every: int = 0
        late: bool = False
        """a thread of its own writes the pictures, which it holds until then"""
        wait_at: int = -1
        """for that picture it waits until the run is stopped"""
        sound: bool = False

    def open(self) -> None:
        self.file = Path(self.params.path).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115
        print("open", self.context.incarnation, file=self.file)
        self.queue: deque[streamer.Frame | None] = deque()
        self.news = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._write_late, daemon=True)
        if self.params.late:
            self.thread.start()

    def takes_audio(self) -> bool:
        return self.params.sound

    def audio(self, packet: streamer.Packet) -> None:
        print("audio", packet.pts, len(packet.data), file=self.file)

    def process(self, frame: streamer.Frame) -> None:
        p = self.params
        if 0 <= p.kill_at <= frame.seq and self.context.incarnation == 1:
            time.sleep(p.kill_after)
            die()
        if 0 <= p.fail_at <= frame.seq and self.context.incarnation <= p.fail_lives:
            raise streamer.SinkError("the disk is full as asked")
        if p.seconds:
            time.sleep(p.seconds)
        if frame.seq == p.wait_at:
            self.context.stopping.wait()
        if p.drop_every and frame.seq % p.drop_every == 0:
            self.context.drop(streamer.Drop.RATE)
            return
        if p.late:
            self.queue.append(frame.hold())
            self.news.release()
        else:
            self._write(frame)

    def _write(self, frame: streamer.Frame) -> None:
        pixels = frame.numpy()
        height, width = pixels.shape[:2]
        low, high = pixels.min(), pixels.max()
        print(frame.seq, frame.pts, f"{width}x{height}", low, high, file=self.file)

    def _write_late(self) -> None:
        while self.news.acquire() and (frame := self.queue.popleft()) is not None:
            with frame:
                time.sleep(0.002)
                self._write(frame)

    def finish(self) -> None:
        if self.params.late:
            self.queue.append(None)
            self.news.release()
            self.thread.join()
        if self.params.kill_at_end and self.context.incarnation == 1:
            die()
        time.sleep(self.params.finish_seconds)
        if self.params.fail_finish == "node":
            raise streamer.SinkError("the file cannot be completed")
        if self.params.fail_finish == "surprise":
            raise RuntimeError("a surprise at the end")
        print("end", file=self.file)

    def close(self) -> None:
        if hasattr(self, "file"):
            self.file.close()
