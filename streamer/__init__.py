"""streamer: live video in, every frame restyled by a one-step diffusion model, live video out."""

from __future__ import annotations

# Not even `typing` is imported: whatever the program loads before it has seen to Ctrl-C, a Ctrl-C
# in that moment answers with a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from streamer.audio import AudioFormat, Packet
    from streamer.drops import Drop
    from streamer.errors import (
        FrameError,
        GraphError,
        LeaseError,
        LinkError,
        NodeError,
        ParameterError,
        Problem,
        ProtocolError,
        RunError,
        SinkError,
        SlabError,
        SourceError,
        StreamerError,
    )
    from streamer.frame import Frame
    from streamer.graph import Graph
    from streamer.header import Header, Hop
    from streamer.nodebase import Context, Join, Node, Params, Sink, Source, Transform, node
    from streamer.runtime import run
    from streamer.status import Count, Status

__version__ = "0.1.0"

_HOMES = {
    "AudioFormat": "streamer.audio",
    "Context": "streamer.nodebase",
    "Count": "streamer.status",
    "Drop": "streamer.drops",
    "Frame": "streamer.frame",
    "FrameError": "streamer.errors",
    "Graph": "streamer.graph",
    "GraphError": "streamer.errors",
    "Header": "streamer.header",
    "Hop": "streamer.header",
    "Join": "streamer.nodebase",
    "LeaseError": "streamer.errors",
    "LinkError": "streamer.errors",
    "Node": "streamer.nodebase",
    "NodeError": "streamer.errors",
    "Packet": "streamer.audio",
    "ParameterError": "streamer.errors",
    "Params": "streamer.nodebase",
    "Problem": "streamer.errors",
    "ProtocolError": "streamer.errors",
    "RunError": "streamer.errors",
    "Sink": "streamer.nodebase",
    "SinkError": "streamer.errors",
    "SlabError": "streamer.errors",
    "Source": "streamer.nodebase",
    "SourceError": "streamer.errors",
    "Status": "streamer.status",
    "StreamerError": "streamer.errors",
    "Transform": "streamer.nodebase",
    "node": "streamer.nodebase",
    "run": "streamer.runtime",
}

__all__ = [
    "AudioFormat",
    "Context",
    "Count",
    "Drop",
    "Frame",
    "FrameError",
    "Graph",
    "GraphError",
    "Header",
    "Hop",
    "Join",
    "LeaseError",
    "LinkError",
    "Node",
    "NodeError",
    "Packet",
    "ParameterError",
    "Params",
    "Problem",
    "ProtocolError",
    "RunError",
    "Sink",
    "SinkError",
    "SlabError",
    "Source",
    "SourceError",
    "Status",
    "StreamerError",
    "Transform",
    "__version__",
    "node",
    "run",
]


def __getattr__(name: str) -> Any:
    # Names are imported when first asked for, so that `import streamer` and `streamer check`
    # stay instant.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'streamer' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
