"""No encoder gives this process a priority that stops the rest of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODECS = ("libsvtav1", "libx264", "libx265", "libvpx-vp9")
ENCODE = """
import os, sys
sys.path.insert(0, {here!r})
from encoder_media import MILLI, frames
from nodes.encoder import Encoder
from streamer.testing import solo

def policies():
    threads = os.listdir("/proc/self/task")
    return {{os.sched_getscheduler(int(thread)) for thread in threads}}, len(threads)

encoder = solo(Encoder, url={path!r}, codec={codec!r})
opened = policies()
for frame in frames(range(0, 400, 40), time_base=MILLI):
    encoder.process(frame)
    frame.release()
print(opened[0] | policies()[0], policies()[1] > 1)
encoder.finish()
encoder.close()
"""
DOCTOR = """
import os
from streamer.doctor.encoders import look
list(look())
print({os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")})
"""


def ran(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def may_be_real_time() -> bool:
    program = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    return done.returncode == 0


needs_right = pytest.mark.skipif(
    not may_be_real_time(), reason="this user may not raise priorities, and so no encoder can"
)


@needs_right
@pytest.mark.parametrize("codec", CODECS)
def test_encoding_goes_on_at_ordinary_priority(tmp_path: Path, codec: str) -> None:
    here, path = str(Path(__file__).parent), str(tmp_path / "out.mkv")
    said = ran(ENCODE.format(here=here, path=path, codec=codec))
    assert said == f"{{{os.SCHED_OTHER}}} True"


@needs_right
def test_the_doctor_tries_encoders_at_ordinary_priority() -> None:
    assert ran(DOCTOR) == f"{{{os.SCHED_OTHER}}}"
