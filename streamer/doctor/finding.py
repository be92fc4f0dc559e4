"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a thing stands."""

    OK = "ok"
    """works"""
    WARN = "warn"
    """something useful is missing, and most of streamer works without it"""
    FAIL = "fail"
    """streamer cannot do its main job here"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: heading under which it is shown.
        name: what it is, a few words.
        status: how it stands.
        detail: what was found.
        advice: what to install or change; empty if nothing need be done.
    """

    area: str
    name: str
    status: Status
    detail: str
    advice: str = ""
