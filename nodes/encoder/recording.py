"""A recording: one file, or one after the other by time, size or change of the pictures."""

from __future__ import annotations

import errno
import logging
import time
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

from nodes.encoder.disk import FULL, FileLock, Retry, Room, bytes_shown
from nodes.encoder.ending import Ending
from nodes.encoder.failures import failure
from nodes.encoder.mux import Addable, Mux, muxer_options, plays
from nodes.encoder.order import SOUND, VIDEO, Due
from nodes.encoder.outputs import MOV, MP4, Output
from nodes.encoder.parts import Names
from nodes.encoder.video import VideoEncoder
from streamer import Context, Drop, Header, SinkError, Status

_LATE: Final = Fraction(2)
"""seconds after which a finished file waits no longer for the rest of its sound"""
_WELL: Final = Fraction(10)
"""seconds of a file after which it was worth to be begun, even if it ends with an error"""
_PLAYS: Final = 10**6
"""bytes of a file that is taken to play without a look into it"""


@dataclass(slots=True)
class _Part:
    """One file that is being written.

    Attributes:
        mux: the container.
        lock: on the file.
        start: seconds of the recording at which it begins.
        end: seconds at which the next one begins, if it has begun.
        size: bytes of the packets so far.
        group: bytes since the last keyframe.
        ending: sees to the end of an MP4 film.
    """

    mux: Mux
    lock: FileLock
    start: Fraction
    end: Fraction | None = None
    size: int = 0
    group: int = 0
    ending: Ending = field(default_factory=Ending)

    def write(self, due: Due) -> None:
        packet = due.packet
        if self.mux.output.container in (MP4, MOV):
            self.ending.fit(due)
        shift = round(self.start / packet.time_base)
        packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
        self.size += packet.size
        self.group += packet.size
        self.mux.write(due.stream, packet)


class Recording:
    """Takes packets in order and puts them into files; see the module.

    A file begins with a keyframe and plays alone; no picture is lost between two, and the next
    one begins where the one before it ends. When the disk is as full as it may get, the file is
    closed properly and pictures are dropped, until there is room again. A file that may grow no
    more goes on in another one at the next keyframe. Where the disk refuses to take more though
    there seems to be room, as with a quota, tries become rarer.

    Args:
        output: its path names the first file, or all of them.
        names: of the files.
        room: on the disk.
        options: of the muxer, by FFmpeg's names; they win over the usual ones.
        megabytes: size of one file in 10**6 bytes, None for no limit.
        context: of the node.

    Attributes:
        lost: pictures that found no room.
    """

    def __init__(
        self,
        output: Output,
        *,
        names: Names,
        room: Room,
        options: dict[str, str],
        megabytes: float | None,
        context: Context,
    ) -> None:
        self.lost = 0
        self._output, self._names, self._room = output, names, room
        self._options = {**muxer_options(output), **options}
        self._bytes = round(megabytes * 10**6) if megabytes is not None else None
        self._context = context
        self._tracks: list[Addable] = []
        self._video: VideoEncoder | None = None
        self._part: _Part | None = None
        self._before: _Part | None = None
        self._full = self._why = ""
        self._retry = Retry()
        self._too_large = False  # it stands still since a file may grow no more
        self._over = False  # no other file is begun

    def start(self, tracks: list[Addable], video: VideoEncoder) -> None:
        """Begins with streams, in a file of their own."""
        self._tracks, self._video = tracks, video
        if self._full or not self._room.enough():
            self._stop("")
        else:
            self._open(Fraction(0))

    def write(self, due: Due, header: Header | None) -> bool:
        """Writes a packet to the file that it belongs to; False if there is no room for it."""
        try:
            if not self._full and not self._room.enough(due.packet.size):
                self._stop("")
            if due.stream == VIDEO and due.packet.is_keyframe:
                self._turn(due)
            part = self._part_for(due)
            if part is not None:
                part.write(due)
                return True
        except SinkError as error:
            number = getattr(error.__cause__, "errno", None)
            if number not in FULL:
                raise
            self._refused(number, str(error), due.at)
        if header is not None:
            self.lost += 1
            self._context.drop(Drop.NO_SPACE)
        return False

    def close(self) -> None:
        """Ends the file that is open."""
        self._close_before()
        part, self._part = self._part, None
        if part is not None:
            self._end(part)

    def abandon(self) -> None:
        """Ends what is open as well as can be; never raises."""
        for part in self._parts:
            if part is not None:
                part.mux.abandon()
                part.lock.release()
        self._part = self._before = None

    def _turn(self, due: Due) -> None:
        """At a keyframe: begins the next file if it is time to."""
        at = due.packet.pts * due.packet.time_base
        if self._full:
            if self._resumes:
                self._full = ""
                self._open(at)
                if not self._too_large:
                    self._context.log.warning("there is room again: the recording goes on")
                self._context.status(Status.LIVE, "recording again")
            return
        part = self._part
        if part is None:
            return
        group, part.group = part.group, 0
        too_long = self._video is not None and self._video.cut_at(at)
        too_large = self._bytes is not None and part.size + group > self._bytes and part.size > 0
        if at > part.start and (too_long or too_large):
            self._close_before()
            part.end = at
            self._before, self._part = part, None
            self._open(at)
            if len(self._tracks) == 1:
                self._close_before()

    @property
    def _resumes(self) -> bool:
        """Whether a recording that stands still may go on in another file."""
        if self._over or not self._retry.due:
            return False
        return self._room.enough(after_full=not self._too_large)

    def _part_for(self, due: Due) -> _Part | None:
        before, part = self._before, self._part
        if before is None or before.end is None:
            # Sound that was held back over a long gap is of a file that is closed: here it would
            # be heard long before the beginning.
            stale = part is not None and due.stream == SOUND and due.at < part.start - _LATE
            return None if stale else part
        if due.stream == VIDEO:
            if due.at > before.end + _LATE:
                self._close_before()
        elif due.at < before.end:
            return before
        else:
            self._close_before()
        return self._part

    def _open(self, start: Fraction) -> None:
        begun = self._names.begun
        path = self._names.next(time.time())
        if path != self._output.path:
            level = logging.INFO if self._names.planned else logging.WARNING
            does = "goes on" if begun else "begins"
            self._context.log.log(level, "the recording %s in %s", does, path)
        output = replace(self._output, url=str(path), path=path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise failure(output, "write", error) from error
        fresh = not path.exists()
        lock = FileLock(output, path)
        try:
            mux = Mux(output, self._tracks, self._options)
        except BaseException:
            if fresh:
                path.unlink(missing_ok=True)
            lock.release()
            raise
        self._part = _Part(mux, lock, start)

    def _close_before(self) -> None:
        part, self._before = self._before, None
        if part is not None:
            self._end(part)

    def _end(self, part: _Part) -> None:
        try:
            part.mux.close()
        finally:
            part.lock.release()
        self._context.log.info("%s is complete", part.mux.output.shown)

    def _refused(self, number: int, why: str, at: Fraction) -> None:
        """The disk takes no more: closes what is open, and settles whether and when to go on."""
        well = any(part is not None and at - part.start >= _WELL for part in self._parts)
        if well:
            self._retry.went_well()
        self._stop(why)
        if number == errno.EFBIG:
            # Another file helps, unless hardly anything fits into that one, either.
            self._over = self._too_large and not well
            self._too_large = True
            return
        self._too_large, self._over = False, not self._room.keep_free
        wait = self._retry.failed()
        if not self._over:
            self._context.log.warning("the next try to go on comes after %.0f s", wait)

    @property
    def _parts(self) -> tuple[_Part | None, _Part | None]:
        return self._before, self._part

    def _stop(self, refusal: str) -> None:
        """The disk is full: closes what is open, and waits for room.

        Args:
            refusal: what the disk has said; empty if it takes more, but is to keep some.
        """
        if self._full:
            return
        self._too_large = self._too_large and bool(refusal)
        limit = f"less than {bytes_shown(self._room.keep_free)} (keep_free)"
        self._full = refusal or (
            f"cannot go on writing {self._output.shown}: {limit} is free on its disk; free some"
        )
        self._why = self._why or self._full
        self._context.log.error("%s; the file is closed, and pictures are dropped", self._full)
        self._context.status(Status.FAILED, self._full)
        parts = self._parts
        try:
            self.close()
        except SinkError as error:
            self._context.log.error("%s", error)
        finally:
            self.abandon()
        for part in parts:
            if refusal and part is not None:
                self._discard(part)

    def _discard(self, part: _Part) -> None:
        """Removes a closed file in which nothing plays, so that tries leave nothing behind."""
        output = part.mux.output
        path = output.path
        if path is None or path.is_symlink() or not path.is_file():
            return
        if path.stat().st_size >= _PLAYS or plays(path):
            return
        try:
            lock = FileLock(output, path)
        except SinkError:
            return  # another output has begun it anew
        path.unlink(missing_ok=True)
        lock.release()
        self._context.log.info("%s is removed: nothing in it plays", output.shown)

    @property
    def reproach(self) -> str:
        """What to say in the end if the disk has refused anything; empty if it took all.

        The end of a file that could not be written is not known to be lost, picture by picture.
        """
        lost = f"{self.lost} pictures were not recorded: " if self.lost else ""
        return lost + self._why
