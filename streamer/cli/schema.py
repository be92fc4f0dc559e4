"""`streamer schema`."""

from __future__ import annotations

import json
import sys

from streamer.masking import mask


def command() -> None:
    """Print the JSON Schema of graph files, with the parameters of every installed kind.

    Save it beside your graphs (`streamer schema > graph.schema.json`) and name it in the first
    line of a graph, so that editors complete and check what you type:
    `# yaml-language-server: $schema=graph.schema.json`
    """
    from streamer.graph.schema import graph_schema

    def warn(message: str) -> None:
        print(f"streamer: warning: {mask(message)}", file=sys.stderr)

    print(json.dumps(graph_schema(warn), indent=2, ensure_ascii=False))
