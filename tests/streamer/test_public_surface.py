"""The public names, what importing them costs, and which way dependencies point."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import streamer

ROOT = Path(streamer.__file__).parent
PUBLIC = {
    # what a node is made of
    "Source", "Transform", "Join", "Sink", "Node", "Params", "node", "Context", "Count", "Status",
    # what it gets and gives
    "Frame", "Header", "Hop", "Packet", "AudioFormat", "Drop",
    # graphs and runs
    "Graph", "run",
    # errors
    "StreamerError", "GraphError", "Problem", "ParameterError", "NodeError", "SourceError",
    "SinkError", "FrameError", "LinkError", "ProtocolError", "LeaseError", "SlabError", "RunError",
    "__version__",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has imported after some code."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.check_output([sys.executable, "-c", script], text=True)
    return {name.partition(".")[0] for name in json.loads(out)}


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(node.module or "")
    return found


def test_the_public_names_are_these() -> None:
    assert set(streamer.__all__) == PUBLIC
    assert list(streamer.__all__) == sorted(streamer.__all__)
    assert dir(streamer) == sorted(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(streamer, name)
    if name != "__version__":
        assert (value.__doc__ or "").strip()
        assert value.__module__.startswith("streamer.")


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'streamer' has no attribute 'Decoder'"):
        _ = streamer.Decoder  # type: ignore[attr-defined]


def test_importing_streamer_is_instant() -> None:
    heavy = {"numpy", "torch", "av", "cv2", "zmq", "cupy", "pydantic", "msgpack", "yaml", "rich"}
    assert not heavy & modules_after("import streamer")


def test_writing_a_node_or_holding_a_frame_imports_no_codec_and_no_model() -> None:
    heavy = {"torch", "av", "cv2", "zmq", "cupy", "diffusers", "transformers", "openvino"}
    names = "Frame, Header, Node, Source, Transform, Join, Sink, Params, node, Context, Packet"
    assert not heavy & modules_after(f"from streamer import {names}")


def test_a_worker_imports_no_codec_and_no_model_before_its_node_does() -> None:
    heavy = {"torch", "av", "cv2", "cupy", "yaml", "rich", "typer"}
    assert not heavy & modules_after("import streamer.runtime.worker")


def test_a_frame_imports_torch_only_when_asked_for_a_tensor() -> None:
    code = (
        "import numpy, streamer, sys\n"
        "frame = streamer.Frame.of(numpy.zeros((4, 4, 3), 'uint8'))\n"
        "frame.numpy(); frame.hold()\n"
        "assert 'torch' not in sys.modules\n"
    )
    assert "torch" not in modules_after(code)


def test_the_engine_knows_no_node() -> None:
    for path in ROOT.rglob("*.py"):
        wrong = {name for name in imports(path) if name.partition(".")[0] == "nodes"}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_dependencies_point_one_way() -> None:
    # frame <- link <- runtime <- cli; a graph is known to the runtime by its plan.
    forbidden = {
        "gpu": ("streamer.link", "streamer.frame", "streamer.runtime", "streamer.nodebase"),
        "link": ("streamer.runtime", "streamer.cli", "streamer.graph", "streamer.nodebase"),
        "telemetry": ("streamer.runtime", "streamer.cli", "streamer.graph", "streamer.link"),
        "runtime": ("streamer.cli",),
        "graph": ("streamer.cli", "streamer.link"),
    }
    for folder, names in forbidden.items():
        for path in (ROOT / folder).rglob("*.py"):
            wrong = {one for one in imports(path) if one.startswith(names)}
            assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"
    for name in ("frame", "lease", "header", "formats", "errors", "drops", "audio"):
        own = {one for one in imports(ROOT / f"{name}.py") if one.startswith("streamer")}
        allowed = ("streamer.errors", "streamer.formats", "streamer.header", "streamer.lease")
        allowed += ("streamer.gpu.device", "streamer.gpu.pixels")  # which import no GPU's library
        if name != "errors":  # which names a report, for types alone
            assert all(one in allowed for one in own), (name, own)
