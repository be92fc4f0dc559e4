"""Recordings whose process is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import pytest


@pytest.mark.parametrize("sound", [(), ("sound",)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".ts", ".mov"])
def test_a_recording_plays_after_sigkill(tmp_path, suffix, sound):
    path = tmp_path / f"out{suffix}"
    victim = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("encoder_victim.py")), str(path), *sound],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert victim.stdout is not None
    killed_at = 300
    last = 0
    for line in victim.stdout:
        last = int(line)
        if last == killed_at:
            victim.kill()
    victim.wait()
    victim.stdout.close()
    assert victim.returncode == -9
    with av.open(str(path)) as container:
        shown = 0
        try:
            for _ in container.decode(video=0):
                shown += 1
        except av.error.FFmpegError:
            # The last fragment may be cut in two.
            pass
    assert (killed_at + 1 - shown) * 0.04 <= 2.0
