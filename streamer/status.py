"""How a node's connection to the outside stands, and what nodes count beside frames."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """State of a source's or an output's connection to a camera, a server or a device."""

    CONNECTING = "connecting"
    """for the first time"""
    LIVE = "live"
    """data flows"""
    STALLED = "stalled"
    """connected, but nothing has come or gone for longer than usual"""
    RECONNECTING = "reconnecting"
    """lost, and being tried again"""
    FAILED = "failed"
    """given up"""


class Count(StrEnum):
    """What a node counts beside frames; shown in its report."""

    MENDED = "mended"
    """sources: times that jumped, stood still or ran backwards, and were put right"""
    FILLED = "filled"
    """outputs: pictures shown in place of ones that did not come; never counted as delivered"""
    SKIPPED = "skipped"
    """outputs with viewers: pictures that some viewer was too slow for"""
    HARDWARE = "hardware"
    """pictures that a codec of the GPU has decoded or encoded, in place of the CPU"""
    PASSED = "passed"
    """transforms: pictures passed on as they came, by a node that was not ready yet; outputs: those
    among the delivered ones that a node before them has passed on so"""
