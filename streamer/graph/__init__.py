"""Graph files: reading, checking and planning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamer.graph.graph import Graph

__all__ = ["Graph"]


def __getattr__(name: str) -> Any:
    # Workers import the plan alone; YAML and the checks stay out of them.
    if name == "Graph":
        from streamer.graph.graph import Graph

        return Graph
    raise AttributeError(f"module 'streamer.graph' has no attribute {name!r}")
