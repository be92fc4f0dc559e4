"""Paths of this machine, for FFmpeg."""

from __future__ import annotations


def for_ffmpeg(path: str) -> str:
    """A path as FFmpeg takes it for one: what stands before a first colon would be a protocol."""
    return f"file:{path}" if ":" in path.partition("/")[0] else path
