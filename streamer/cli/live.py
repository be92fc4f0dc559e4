"""What `streamer run` shows while it runs: a live table in a terminal, plain lines elsewhere.

Both show interim reports of the supervisor, so their numbers are the report's.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from streamer.cli.unhurried import Unhurried
from streamer.drops import Drop
from streamer.runtime.report import Report, SinkReport
from streamer.runtime.standing import AWAY, Standing
from streamer.runtime.supervisor import Supervisor
from streamer.status import Status

PLAIN_EVERY: Final = 5.0
"""seconds between two plain lines"""


class Rate:
    """Frames a second over the last seconds, from counts that are looked at now and then.

    Args:
        window: seconds.
    """

    def __init__(self, window: float = 2.0) -> None:
        self._window = window
        self._seen: list[tuple[float, int]] = []

    def at(self, now: float, count: int) -> float | None:
        """The rate when `count` frames have been counted at the time `now` (seconds).

        None the first time: there is nothing to compare with yet.
        """
        self._seen.append((now, count))
        while len(self._seen) > 2 and now - self._seen[1][0] >= self._window:
            self._seen.pop(0)
        (then, before) = self._seen[0]
        return (count - before) / (now - then) if now > then else None


class LogConsole(Console):
    """Standard error; who reads it, and whether anybody does, is nothing to the run."""

    def __init__(self) -> None:
        self._unhurried = Unhurried(sys.stderr)
        # What looks like an emoji's name may be part of an address: [2001:db8:100:1::5].
        super().__init__(file=self._unhurried, emoji=False)  # type: ignore[arg-type]

    @property
    def redraws(self) -> bool:
        """Whether what was printed can be drawn anew.

        Rich takes anything for a terminal where colours are asked for (FORCE_COLOR).
        """
        return sys.stderr.isatty() and not self.is_dumb_terminal

    def settle(self) -> None:
        """Waits until all is written."""
        self._unhurried.settle()

    def on_broken_pipe(self) -> None:
        """Falls silent, where Rich would end the program."""
        self.quiet = True


def say(console: Console, text: str) -> None:
    """Prints a line as it stands; a full disk behind the log loses the line, not the run."""
    with contextlib.suppress(OSError):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


class PlainDisplay:
    """Lines for logs and pipes.

    Args:
        console: where to; standard error.
        quiet: only what went wrong.
    """

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._next = time.monotonic() + PLAIN_EVERY
        self._rates: dict[str, Rate] = {}
        self._away: set[str] = set()
        self._said: dict[str, str] = {}

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def line(self, worker: str, text: str) -> None:
        """A worker's own line, under its name."""
        if not self._quiet:
            self._print(f"{worker} | {text}")

    def state(self, node: str, state: str, text: str) -> None:
        """Shows what a node is busy with, a line for each thing."""
        news = self._said.get(node, "") != text
        self._said[node] = text
        told = state in ("restarting", "resting")  # by an event
        if text and news and not told and not self._quiet:
            self._print(f"{node}: {text}")

    def standing(self, node: str, standing: Standing) -> None:
        """Shows once how a source or an output stands now; quiet: what went wrong, and its end."""
        bad = standing.status in AWAY
        if not self._quiet or bad or node in self._away:
            self._print(f"{node}: {standing}")
        (self._away.add if bad else self._away.discard)(node)

    def event(self, text: str) -> None:
        """Shows an event."""
        self._print(f"streamer: {text}")

    def tick(self, supervisor: Supervisor) -> None:
        """A line every few seconds."""
        now = time.monotonic()
        if self._quiet or not supervisor.running or now < self._next:
            return
        self._next = now + PLAIN_EVERY
        report = supervisor.report(changes=False)
        for name, sink in report.sinks.items():
            rate = self._rates.setdefault(name, Rate()).at(now, sink.delivered)
            passed = passed_on(report.nodes[name].passed)
            self._print(f"{name}: {describe(sink, rate)}{passed}{_left(supervisor, report)}")

    def _print(self, text: str) -> None:
        say(self._console, text)


class TerminalDisplay(PlainDisplay):
    """A live table, and a progress bar where the length is known."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, quiet=False)
        self._states: dict[str, tuple[str, str]] = {}
        self._live = Live(console=console, refresh_per_second=8, transient=True, auto_refresh=False)
        self._next = 0.0

    def __enter__(self) -> TerminalDisplay:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the terminal was closed
            self._live.stop()

    def state(self, node: str, state: str, text: str) -> None:
        """Remembers the state for the table."""
        self._states[node] = (state, text)

    def tick(self, supervisor: Supervisor) -> None:
        """Draws the table anew."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 0.25
            with contextlib.suppress(OSError):
                self._live.update(self._draw(supervisor, now), refresh=True)

    def _draw(self, supervisor: Supervisor, now: float) -> RenderableType:
        report = supervisor.report(changes=False)
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("node", "state", "frames", "fps", "ms", "age ms", "dropped"):
            table.add_column(title, justify="left" if title in ("node", "state") else "right")
        for node in supervisor.plan.nodes:
            seen = report.nodes[node.name]
            sink = report.sinks.get(node.name)
            state, text = self._states.get(node.name, ("starting", ""))
            rate = self._rates.setdefault(node.name, Rate()).at(now, seen.frames)
            table.add_row(
                node.name,
                _how(state, text, supervisor.standing(node.name)),
                str(seen.frames),
                _number(rate),
                _number(seen.process_ms["p50"]),
                _number(sink.age_ms["p50"]) if sink else "",
                _drops(sink.dropped) if sink else "",
            )
        rows: list[RenderableType] = [table, *_warming(supervisor, report)]
        expected = expected_frames(supervisor, report)
        if expected:
            done = max(sink.captured for sink in report.sinks.values())
            bar = Table.grid(padding=(0, 1))
            bar.add_row(
                ProgressBar(total=expected, completed=min(done, expected), width=40),
                f"{done}/{expected}{_left(supervisor, report)}",
            )
            rows.append(bar)
        return Group(*rows)


_STYLES: Final = {
    "running": "green",
    "finished": "dim",
    "ready": "cyan",
    "restarting": "red",
    "resting": "red",
    "failed": "red",
    Status.LIVE: "green",
    Status.RECONNECTING: "red",
    Status.FAILED: "red",
}


def _how(state: str, text: str, standing: Standing | None) -> Text:
    """A node's state, or how it stands with the outside where that says more."""
    if standing is None or state not in ("opening", "ready", "running", "failed"):
        return Text(text or state, style=_STYLES.get(state, "yellow"))
    style = _STYLES.get(standing.status, "yellow")
    if standing.status is Status.LIVE:
        return Text(text or str(standing.status), style=style)
    return Text(f"{standing}, {standing.seconds:.0f} s", style=style)


def describe(sink: SinkReport, rate: float | None) -> str:
    """One sink's numbers in one line."""
    pace, age = _number(rate) or "-", _number(sink.age_ms["p50"]) or "-"
    dropped = _drops(sink.dropped)
    return f"{sink.delivered} of {sink.captured} frames, {pace} fps, age {age} ms" + (
        f", dropped {dropped}" if dropped else ""
    )


def passed_on(count: int | None) -> str:
    """How many of an output's pictures show what came in, to stand behind its other numbers."""
    return f", {count} of them as they came in" if count else ""


def _warming(supervisor: Supervisor, report: Report) -> list[RenderableType]:
    """A bar for each node that loads or builds something, and what it has passed on meanwhile."""
    rows: list[RenderableType] = []
    for node in supervisor.plan.nodes:
        stage = supervisor.progress.of(node.name)
        passed = report.nodes[node.name].passed if node.role == "transform" else 0
        said = f"{passed} pictures passed on as they came" if passed else ""
        if stage is not None:
            bar = Table.grid(padding=(0, 1))
            words = f"{node.name}: {stage.text}, {stage.done}/{stage.of}"
            bar.add_row(
                ProgressBar(total=stage.of, completed=stage.done, width=40),
                Text(f"{words}; {said}" if said else words),
            )
            rows.append(bar)
        elif said:
            rows.append(Text(f"{node.name}: {said}", style="dim"))
    return rows


def expected_frames(supervisor: Supervisor, report: Report) -> int:
    """Frames that the sources will give in all, 0 if any source's length is unknown."""
    counts = []
    for node in supervisor.plan.nodes:
        if node.role == "source":
            frames, _ = supervisor.expected.get(node.name, (0, 0.0))
            limit = supervisor.plan.frames or 0
            counts.append(min(frames, limit) if frames and limit else frames or limit)
    return max(counts) if counts and all(counts) else 0


def _left(supervisor: Supervisor, report: Report) -> str:
    expected = expected_frames(supervisor, report)
    done = max((sink.delivered for sink in report.sinks.values()), default=0)
    if not expected or not report.fps or done < 2:
        return ""
    seconds = max(0.0, (expected - done) / report.fps)
    return f", {int(seconds // 60)}:{int(seconds % 60):02d} left"


def _drops(dropped: Mapping[str, int]) -> str:
    # What is still on its way is not lost.
    lost = {reason: n for reason, n in dropped.items() if reason != Drop.IN_FLIGHT}
    return ", ".join(f"{count} {reason}" for reason, count in lost.items())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
