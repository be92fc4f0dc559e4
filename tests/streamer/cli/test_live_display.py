"""What the displays say of nodes that come and go."""

from __future__ import annotations

import io
import os
import sys

import pytest
from rich.console import Console

from streamer.cli.live import LogConsole, PlainDisplay, Rate, TerminalDisplay, _how, describe, say
from streamer.runtime.report import SinkReport
from streamer.runtime.standing import Standing
from streamer.status import Status


def display(*, quiet: bool = False) -> tuple[PlainDisplay, io.StringIO]:
    out = io.StringIO()
    return PlainDisplay(Console(file=out, width=200), quiet=quiet), out


def test_plain_lines_say_each_change() -> None:
    plain, out = display()
    plain.standing("cam", Standing(Status.CONNECTING, "", 0))
    plain.standing("cam", Standing(Status.LIVE, "", 0))
    plain.standing("cam", Standing(Status.RECONNECTING, "nothing listens at cam port 554", 0))
    plain.state("cam", "restarting", "an event tells")
    assert out.getvalue().splitlines() == [
        "cam: connecting",
        "cam: live",
        "cam: reconnecting: nothing listens at cam port 554",
    ]


def test_a_standing_says_its_word_once() -> None:
    plain, out = display()
    plain.standing("cam", Standing(Status.CONNECTING, "connecting to rtsp://cam/live", 0))
    plain.standing("cam", Standing(Status.CONNECTING, "waiting for a sender", 0))
    assert out.getvalue().splitlines() == [
        "cam: connecting to rtsp://cam/live",
        "cam: connecting: waiting for a sender",
    ]


def test_a_rate_is_unknown_until_there_are_two_counts() -> None:
    rate = Rate()
    assert rate.at(10.0, 148) is None
    assert rate.at(15.0, 298) == pytest.approx(30)
    assert rate.at(16.0, 298) == pytest.approx(25)
    sink = SinkReport(captured=183, delivered=148, dropped={}, fps=0.0, age_ms={"p50": None})
    assert describe(sink, None) == "148 of 183 frames, - fps, age - ms"
    assert describe(sink, 29.97) == "148 of 183 frames, 30.0 fps, age - ms"


def test_quiet_lines_say_what_went_wrong_and_its_end() -> None:
    plain, out = display(quiet=True)
    plain.standing("cam", Standing(Status.CONNECTING, "", 0))
    plain.standing("cam", Standing(Status.LIVE, "", 0))
    plain.standing("cam", Standing(Status.STALLED, "", 0))
    plain.standing("cam", Standing(Status.RECONNECTING, "timeout", 0))
    plain.standing("cam", Standing(Status.LIVE, "", 0))
    plain.standing("cam", Standing(Status.LIVE, "again", 0))
    assert out.getvalue().splitlines() == [
        "cam: stalled",
        "cam: reconnecting: timeout",
        "cam: live",
    ]


def test_plain_lines_say_each_stage_once() -> None:
    plain, out = display()
    for text in ("loading the U-Net", "loading the U-Net", "loading the decoder", "", ""):
        plain.state("style", "running", text)
    plain.state("other", "opening", "loading the decoder")
    plain.state("style", "running", "loading the decoder")
    assert out.getvalue().splitlines() == [
        "style: loading the U-Net",
        "style: loading the decoder",
        "other: loading the decoder",
        "style: loading the decoder",
    ]


@pytest.mark.parametrize(
    ("state", "text", "standing", "shown", "style"),
    [
        ("running", "", None, "running", "green"),
        ("opening", "loading the model", None, "loading the model", "yellow"),
        ("resting", "resting for 30 s", None, "resting for 30 s", "red"),
        ("running", "", Standing(Status.LIVE, "x", 9), "live", "green"),
        ("running", "", Standing(Status.STALLED, "", 3.2), "stalled, 3 s", "yellow"),
        (
            *("running", "", Standing(Status.RECONNECTING, "refused", 62)),
            *("reconnecting: refused, 62 s", "red"),
        ),
        # A process that is gone has no connection, whatever its last words were.
        ("restarting", "killed", Standing(Status.LIVE, "", 9), "killed", "red"),
    ],
)
def test_the_table_shows_what_says_most(
    state: str, text: str, standing: Standing | None, shown: str, style: str
) -> None:
    drawn = _how(state, text, standing)
    assert (drawn.plain, drawn.style) == (shown, style)


def test_colours_alone_make_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = LogConsole()
    assert console.is_terminal
    assert not console.redraws


@pytest.mark.parametrize("kind", ["dumb", "xterm"])
def test_a_table_is_drawn_where_a_terminal_can_draw(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(ours), os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", kind)
        console = LogConsole()
        assert console.redraws == (kind == "xterm")
        console.settle()


def test_addresses_are_no_emoji(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    console = LogConsole()
    say(console, "nothing listens at rtsp://[2001:db8:100:1::5]:554")
    console.settle()
    assert out.getvalue() == "nothing listens at rtsp://[2001:db8:100:1::5]:554\n"


def test_a_terminal_that_was_closed_does_not_keep_the_display_from_ending() -> None:
    class Closed(io.StringIO):
        gone = False

        def write(self, text: str) -> int:
            if self.gone:
                raise OSError(5, "Input/output error")
            return super().write(text)

        def flush(self) -> None:
            if self.gone:
                raise OSError(5, "Input/output error")

    out = Closed()
    with TerminalDisplay(Console(file=out, force_terminal=True)) as terminal:
        terminal.event("before")
        out.gone = True
        terminal.event("after")
    assert "before" in out.getvalue()
