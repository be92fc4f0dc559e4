"""Running a plan: the supervisor, its workers, and what they report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamer.errors import RunError

if TYPE_CHECKING:
    from streamer.graph import Graph
    from streamer.runtime.report import Report
    from streamer.runtime.standing import Standing
    from streamer.runtime.supervisor import Supervisor
    from streamer.runtime.watcher import Watcher

__all__ = ["Report", "Silent", "Supervisor", "run"]


def __getattr__(name: str) -> Any:
    # Every worker imports this package, and none of them needs what the supervisor does.
    if name == "Report":
        from streamer.runtime.report import Report

        return Report
    if name == "Supervisor":
        from streamer.runtime.supervisor import Supervisor

        return Supervisor
    raise AttributeError(f"module 'streamer.runtime' has no attribute {name!r}")


class Silent:
    """A watcher that keeps quiet; derive from it to hear what interests you."""

    def line(self, worker: str, text: str) -> None:
        """See `streamer.runtime.watcher.Watcher`."""

    def state(self, node: str, state: str, text: str) -> None:
        """See `streamer.runtime.watcher.Watcher`."""

    def standing(self, node: str, standing: Standing) -> None:
        """See `streamer.runtime.watcher.Watcher`."""

    def event(self, text: str) -> None:
        """See `streamer.runtime.watcher.Watcher`."""

    def tick(self, supervisor: Supervisor) -> None:
        """See `streamer.runtime.watcher.Watcher`."""


def run(
    graph: Graph,
    *,
    frames: int | None = None,
    duration: float | None = None,
    watcher: Watcher | None = None,
) -> Report:
    """Runs a graph to its end.

    Args:
        graph: from `Graph.load` or `Graph.from_dict`.
        frames: sources end after so many pictures.
        duration: the run drains after so many seconds, counted from the first frame.
        watcher: told of what happens while it runs.

    Returns:
        What every sink, node and link did.

    Raises:
        GraphError: the graph cannot be planned.
        RunError: a node failed; the report is the error's `report`.
    """
    from streamer.runtime.supervisor import Supervisor

    supervisor = Supervisor(graph.plan(frames=frames), watcher or Silent(), duration=duration)
    report = supervisor.run()
    if report.errors:
        error = RunError("; ".join(report.errors))
        error.report = report
        raise error
    return report
