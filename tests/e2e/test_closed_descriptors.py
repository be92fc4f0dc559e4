"""Runs whose standard input, output or error is closed, as `nohup streamer run ... <&- &` does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from e2e_support import read_report

GRAPH = {
    "version": 1,
    "name": "closed",
    "nodes": {
        "source": {"uses": "decoder", "with": {"url": "demo:"}},
        "small": {"uses": "preprocess", "from": "source", "with": {"size": "32x32"}},
        "sink": {"uses": "encoder", "from": "small", "with": {"url": "null:"}},
    },
}


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_graph_runs_to_its_end_with_closed_descriptors(tmp_path: Path, closed: str) -> None:
    (tmp_path / "g.json").write_text(json.dumps(GRAPH))
    command = f'exec "$0" -m streamer run g.json --frames 30 --report r.json {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable],
        cwd=tmp_path,
        timeout=120,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    sink = read_report(tmp_path / "r.json")["sinks"]["sink"]
    assert (sink["captured"], sink["delivered"]) == (30, 30)
