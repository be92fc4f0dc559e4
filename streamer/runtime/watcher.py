"""Who is told of a run while it goes on: the live display, say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from streamer.runtime.standing import Standing
    from streamer.runtime.supervisor import Supervisor


class Watcher(Protocol):
    """What is told of a run while it goes on; every method may do nothing."""

    def line(self, worker: str, text: str) -> None:
        """A worker has written a line."""

    def state(self, node: str, state: str, text: str) -> None:
        """A node has come to a state, from `starting` to `finished`; `text` says more."""

    def standing(self, node: str, standing: Standing) -> None:
        """A source or an output stands otherwise with the outside: connecting, live, away."""

    def event(self, text: str) -> None:
        """Something that the user should know, as one sentence."""

    def tick(self, supervisor: Supervisor) -> None:
        """Called some times a second; `supervisor.report(changes=False)` has the numbers."""
