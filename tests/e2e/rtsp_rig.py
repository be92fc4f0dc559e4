"""The real RTSP servers of the tests: they run on the system's Python, which has GStreamer."""

from __future__ import annotations

import subprocess
from typing import Final

import pytest
from e2e_support import ROOT

PYTHON: Final = "/usr/bin/python3"
CAMERA: Final = ROOT / "tests/nodes/decoder/rtsp_camera.py"
"""sends; started with a port"""
RECORDER: Final = ROOT / "tests/nodes/encoder/rtsp_recorder.py"
"""is sent to; started with a port"""

_LACKING: Final = subprocess.run(
    [PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"],
    capture_output=True,
    check=False,
).returncode

needs_server = pytest.mark.skipif(bool(_LACKING), reason="needs GStreamer's RTSP server (gi)")
