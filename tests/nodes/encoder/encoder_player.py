"""A player in a process of its own: `encoder_player.py URL PICTURES OPTIONS`, prints what it saw.

PyAV connects while it holds the interpreter, so that both ends in one process would wait for each
other.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import av


def play(url: str, wanted: int, options: dict[str, str]) -> dict[str, Any]:
    """Reads packets and pictures until the end, or until there are enough."""
    seen: dict[str, Any] = {
        "pts": [], "keys": [], "order": [], "levels": [], "sound": 0, "failure": None
    }  # fmt: skip
    try:
        with av.open(url, options=options, timeout=20) as container:
            for packet in container.demux():
                # RTSP tells no times before its first report.
                at = float(packet.pts * packet.time_base) if packet.pts is not None else None
                if packet.stream.type == "audio":
                    seen["sound"] += packet.size > 0
                    continue
                if at is not None:
                    seen["order"].append(at)
                    if packet.is_keyframe:
                        seen["keys"].append(at)
                for frame in packet.decode():
                    if frame.pts is not None:
                        seen["pts"].append(float(frame.time))
                    seen["levels"].append(float(frame.to_ndarray(format="gray").mean()))
                if len(seen["levels"]) >= wanted:
                    break
    except av.error.FFmpegError as error:
        seen["failure"] = str(error)
    return seen


if __name__ == "__main__":
    print(json.dumps(play(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))))
