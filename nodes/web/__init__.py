"""Serves what it is given to any number of viewers: WebRTC, MPEG-TS, MJPEG, single pictures."""

from __future__ import annotations

from nodes.web.node import Web
from nodes.web.params import WebParams

__all__ = ["Web", "WebParams"]
