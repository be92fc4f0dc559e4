"""Records until it is killed, in a process: `encoder_victim.py FILE [sound]`."""

from __future__ import annotations

import sys

from encoder_media import MILLI, announced, feed, frames
from encoder_sound import compressed

from nodes.encoder import Encoder
from streamer.testing import SoloContext, solo

encoder = solo(Encoder, url=sys.argv[1], context=SoloContext(live=True))
sound = compressed("aac", "mp4") if sys.argv[2:] == ["sound"] else []
if sound:
    encoder.audio(announced(sound[0].audio))
for number, frame in enumerate(frames(range(0, 40 * 100_000, 40), time_base=MILLI)):
    # Four seconds of sound, then silence: pictures must not wait for more.
    while sound and sound[0].pts * sound[0].time_base <= frame.header.time:
        encoder.audio(sound.pop(0))
    feed(encoder, [frame])
    # The reader at the other end of the pipe kills this process at a number of its choice.
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()
