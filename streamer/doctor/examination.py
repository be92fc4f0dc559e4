"""Looks at everything, area by area."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Final

from streamer.doctor.finding import Finding, Status

_AREAS: Final = (
    ("Versions", "streamer.doctor.versions"),
    ("Encode", "streamer.doctor.encoders"),
    ("Decode", "streamer.doctor.decoders"),
    ("See", "streamer.doctor.gpus"),
    ("See", "streamer.doctor.video_devices"),
    ("Share", "streamer.doctor.sharing"),
    ("Disk", "streamer.doctor.disk"),
)
"""Areas and the modules that look at them: each has a function `look() -> Iterator[Finding]`."""


def examine(*, progress: Callable[[str], None] = lambda area: None) -> list[Finding]:
    """Looks at this machine; takes a second or two and changes nothing.

    An area that cannot be looked at at all is a finding of its own and hides no other.

    Args:
        progress: called with the name of each area before it is looked at.
    """
    findings: list[Finding] = []
    for area, module in _AREAS:
        progress(area)
        try:
            findings.extend(_look(module))
        except Exception as error:
            findings.append(
                Finding(
                    area=area,
                    name=module.rpartition(".")[2].replace("_", " "),
                    status=Status.FAIL,
                    detail=f"could not be looked at: {type(error).__name__}: {error}",
                    advice="install streamer again, with its dependencies",
                )
            )
    return findings


def _look(module: str) -> Iterator[Finding]:
    look: Callable[[], Iterator[Finding]] = import_module(module).look
    return look()


def worst(findings: Iterable[Finding]) -> Status:
    """The worst status among findings; `ok` if there are none."""
    order = [Status.OK, Status.WARN, Status.FAIL]
    return max((finding.status for finding in findings), key=order.index, default=Status.OK)
