"""Records with the encoder until it is killed: `encoder_victim.py FILE`; run as a process."""

from __future__ import annotations

import sys

from encoder_media import MILLI, feed, frames

from nodes.encoder import Encoder
from streamer.testing import solo

encoder = solo(Encoder, url=sys.argv[1])
for number, frame in enumerate(frames(range(0, 40 * 100_000, 40), time_base=MILLI)):
    feed(encoder, [frame])
    # The reader at the other end of the pipe kills this process at a number of its choice.
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()
