from __future__ import annotations

import os
import threading
import time

import pytest

from nodes.decoder import Decoder, connection
from nodes.decoder.feed import Broken, NoAnswer, ThreadFeed, left_behind
from streamer import SourceError, Status
from streamer.testing import SoloContext, solo


def test_a_thread_that_hangs_is_left_behind_and_counted(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = left_behind()

    def opener():
        # Opening a pipe blocks in the kernel until somebody writes, as FFmpeg may block anywhere.
        os.close(os.open(pipe, os.O_RDONLY))
        raise SourceError("too late")

    feed = ThreadFeed(opener, threading.Event(), timeout=1, patience=0.1)
    with pytest.raises(NoAnswer):
        feed.open()
    feed.close()
    assert left_behind() == before + 1
    os.close(os.open(pipe, os.O_RDWR))
    feed._thread.join(60)
    assert left_behind() == before


def test_an_absence_of_this_process_is_silence_but_never_the_last_straw():
    feed = ThreadFeed(lambda: None, threading.Event(), timeout=5, patience=1)
    now = time.monotonic()
    assert feed._silence(0.0, now - 1) == pytest.approx(1, abs=0.2)
    assert feed._silence(0.0, now - 60) == 4.5  # the source has half a second to show itself
    with pytest.raises(Broken):
        feed._silence(4.9, now - 0.3)


def test_a_process_with_too_many_of_them_asks_to_be_started_again(monkeypatch):
    monkeypatch.setattr(connection, "_MOST_LEFT_BEHIND", 0)
    context = SoloContext()
    with pytest.raises(SourceError, match="hang inside FFmpeg") as caught:
        solo(Decoder, context=context, url="rtsp://127.0.0.1:9/live")
    assert caught.value.retry
    assert context.statuses[-1][0] is Status.FAILED


def test_waiting_is_no_hanging():
    class Watched(SoloContext):
        beats = 0

        def alive(self):
            self.beats += 1
            if self.beats > 20:
                self.stopping.set()

    context = Watched()
    decoder = solo(Decoder, context=context, url="rtsp://127.0.0.1:9/live")
    assert list(decoder.frames()) == []
    decoder.close()
    assert context.beats > 20
