"""A node that somebody else wrote, as the documentation shows it, in a graph."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from e2e_support import ROOT, frames_of, read_report

Run = Callable[..., subprocess.CompletedProcess[str]]


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a language in a page of Markdown."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_documented_node_runs(streamer: Run, clip: Path, tmp_path: Path) -> None:
    page = ROOT / "docs/writing-nodes.md"
    node, graph = blocks(page, "python")[0], blocks(page, "yaml")[0]
    assert len(node.strip().splitlines()) <= 20
    (tmp_path / "negative.py").write_text(node)
    (tmp_path / "graph.yaml").write_text(graph.replace("demo:", str(clip)))
    done = streamer("run", "graph.yaml", "--report", "r.json")
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "r.json")
    assert report["nodes"]["invert"]["copies_per_frame"] == 1  # it returns an array of its own
    before, after = frames_of(clip)[40][1], frames_of(tmp_path / "out.mp4")[40][1]
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] < -0.9


def test_a_graph_runs_from_python(clip: Path, tmp_path: Path) -> None:
    code = blocks(ROOT / "docs/writing-nodes.md", "python")[-1]
    script = tmp_path / "run.py"
    script.write_text(code.replace("demo:", str(clip)))
    import sys

    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "90 of 90 frames" in done.stdout
