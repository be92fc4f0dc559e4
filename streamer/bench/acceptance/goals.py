"""What a goal is, what comes of measuring it, and where goals come from.

A package that has goals says so in its metadata::

    [project.entry-points."streamer.goals"]
    model = "package.module:GOALS"

`GOALS` is a sequence of `Goal`; importing its module should be quick. All goals of one entry point
are measured in one process, in their order, so that they may share what is costly to load.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from streamer import plugins
from streamer.errors import StreamerError

GROUP: Final = "streamer.goals"
"""group of entry points"""

Verdict = Literal["reached", "missed", "measured", "simulated", "not available", "failed"]


class NotAvailable(Exception):  # noqa: N818, it is nobody's failure
    """Something that a goal is about is not on this machine; the message says what."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which a goal is measured.

    Attributes:
        fake: on a simulated GPU, or on the CPU, with the smallest models and a few frames: to see
            that the measuring works, which gives no figure worth anything.
        folder: for files; it is removed afterwards.
    """

    fake: bool
    folder: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured.

    Attributes:
        text: for the table.
        reached: whether the goal is; None where there is none, and a figure stands for comparison.
        figures: all numbers, as JSON types.
    """

    text: str
    reached: bool | None
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One line of the table.

    Attributes:
        name: short, unique, for `--only`.
        text: what must be reached, or what is measured.
        seconds: that it may take at most, with everything that it loads.
        measure: measures it; what it raises stands in the table.
        optional: whether it is a comparison that nothing hangs on: where no time is left for it,
            nothing has failed.
    """

    name: str
    text: str
    seconds: float
    measure: Callable[[Conditions], Outcome]
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table, measured or not.

    Attributes:
        name: of the goal.
        goal: its text.
        measured: what was; or why nothing was.
        verdict: `measured` where nothing must be reached, `simulated` where no GPU was, whatever
            came out, `not available` where something is not installed, or no time was left for a
            comparison.
        took: seconds.
        figures: see `Outcome`.
    """

    name: str
    goal: str
    measured: str
    verdict: Verdict
    took: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON types."""
        return asdict(self)


def collect() -> dict[str, Sequence[Goal]]:
    """All goals, by entry point: those of links first, then by name.

    Raises:
        StreamerError: A module with goals cannot be imported, or two goals have one name.
    """
    points = plugins.points(GROUP)
    found: dict[str, Sequence[Goal]] = {}
    for name in sorted(points, key=lambda name: (name != "link", name)):
        try:
            found[name] = tuple(points[name].load())
        except Exception as error:  # the module is someone's code, and may fail in any way
            raise StreamerError(
                f"the goals {name!r} cannot be loaded from {points[name].value}: {error}"
            ) from error
    names = [goal.name for goals in found.values() for goal in goals]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise StreamerError(f"more than one goal is called {', '.join(twice)}")
    return found


def judge(goal: Goal, conditions: Conditions) -> Row:
    """Measures a goal and says whether it is reached; an error becomes the row's own."""
    began = time.monotonic()
    verdict: Verdict
    figures: Mapping[str, Any] = {}
    try:
        outcome = goal.measure(conditions)
    except NotAvailable as error:
        text, verdict = str(error), "not available"
    except Exception as error:  # one goal that cannot be measured does not hide the others
        traceback.print_exc()  # for the log of whoever has to mend it
        text, verdict = f"{type(error).__name__}: {error}", "failed"
    else:
        text, figures = outcome.text, outcome.figures
        if conditions.fake:
            text, verdict = f"{text} (no GPU, no measure)", "simulated"
        elif outcome.reached is None:
            verdict = "measured"
        else:
            verdict = "reached" if outcome.reached else "missed"
    took = round(time.monotonic() - began, 1)
    return Row(
        name=goal.name, goal=goal.text, measured=text, verdict=verdict, took=took, figures=figures
    )
