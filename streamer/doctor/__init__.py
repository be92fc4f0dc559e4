"""What this machine can decode, encode, see and share, and what to install for what is missing."""

from __future__ import annotations

from streamer.doctor.examination import examine, worst
from streamer.doctor.finding import Finding, Status

__all__ = ["Finding", "Status", "examine", "worst"]
