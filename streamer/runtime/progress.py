"""How far nodes have got that load or build something, as the supervisor hears and shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MOST_PARTS: Final = 1_000_000
"""parts of a whole that a note can count"""
_GOING: Final = ("opening", "ready", "running")
"""states in which what a node has begun goes on"""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a node is busy with.

    Attributes:
        text: in a few words.
        done: parts of the whole that are done.
        of: how many there are, at least 1.
    """

    text: str
    done: int
    of: int


class Progress:
    """What nodes have said of work whose parts can be counted, until it is done."""

    def __init__(self) -> None:
        self._stages: dict[str, Stage] = {}

    def hear(self, node: str, text: str, done: int, of: int) -> None:
        """A node says what it is doing; what makes no sense counts as unknown."""
        self._stages.pop(node, None)
        if text and 0 <= done <= of <= MOST_PARTS and of:
            self._stages[node] = Stage(text, done, of)

    def through(self, node: str, state: str, text: str) -> str:
        """What to show of a node that has come to a state: work beside its frame loop goes on.

        Args:
            node: its name.
            state: that it has come to; it has died, failed or ended in others than a few.
            text: that says more of the state.
        """
        if state not in _GOING:
            self._stages.pop(node, None)
        stage = self._stages.get(node)
        return text or (stage.text if stage is not None else "")

    def of(self, node: str) -> Stage | None:
        """What a node is busy with; None if it never said, or has done it."""
        return self._stages.get(node)

    def __repr__(self) -> str:
        return f"<Progress of {len(self._stages)} nodes>"
