"""What a fuzzed parser is, and the promises that each of them keeps for any input.

A parser returns, or raises an error that its documentation names; the error's message is one line,
or one line for each of a bounded number of mistakes, of bounded length.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

MOST_LETTERS = 500
"""characters of a message"""
MOST_LINES = 101
"""mistakes that are told at once"""
PATIENCE = 20.0
"""seconds of processor time for one input: a guard against hangs, far above what any takes"""

Run = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        name: as `--only` takes it.
        about: what it reads, in a few words.
        make: imports the parser, and returns what feeds it one input and checks what comes of it.
        seeds: valid inputs to begin with, and some that are nearly so.
        longest: bytes of an input.
        words: what inputs of its language are made of.
        looks_into_yaml: whether the way through the YAML library counts as something new, too.
    """

    name: str
    about: str
    make: Callable[[], Run]
    seeds: Callable[[], list[bytes]]
    longest: int = 512
    words: tuple[bytes, ...] = ()
    looks_into_yaml: bool = False


def check_message(error: Exception, secret: str = "") -> None:
    """Asserts that an error's message is fit to be shown, and does not hold a secret."""
    assert not secret or secret not in str(error), f"a secret is shown: {error}"
    lines = str(error).split("\n")
    assert len(lines) <= MOST_LINES, f"{len(lines)} lines: {lines[0][:200]}"
    for line in lines:
        assert len(line) <= MOST_LETTERS, f"{len(line)} characters: {line[:200]}"
    assert any(lines), f"{type(error).__name__} says nothing"


def text_of(data: bytes) -> str:
    """Bytes as text of any characters, half ones included."""
    return data.decode("utf-8", errors="surrogateescape")


class Hang(BaseException):
    """An input took longer than `PATIENCE`; no parser catches it."""


@contextlib.contextmanager
def patience(seconds: float = PATIENCE) -> Iterator[None]:
    """Raises `Hang` where the block takes longer; for the main thread."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang(f"still busy after {seconds:.0f} s of processor time")

    former = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)
