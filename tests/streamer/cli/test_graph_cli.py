from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from streamer.cli import main

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_can_be_drawn(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", str(path)]) == 0
    text = capsys.readouterr().out
    assert main(["graph", str(path), "--format", "svg"]) == 0
    root = ElementTree.fromstring(capsys.readouterr().out)
    assert main(["graph", str(path), "-f", "mermaid"]) == 0
    flowchart = capsys.readouterr().out
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text == path.stem
    assert text.startswith(path.stem)
    assert f"title: {path.stem}" in flowchart


def test_overrides_show(capsys: pytest.CaptureFixture[str]) -> None:
    path = next(path for path in CONFIGS if path.stem == "quickstart")
    assert main(["graph", str(path), "--set", "source.url=/dev/video0"]) == 0
    drawn = capsys.readouterr().out
    assert "live" in drawn
    assert "latest 1" in drawn


def test_an_unknown_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", str(CONFIGS[0]), "--format", "png"]) == 2
    assert "png" in capsys.readouterr().err


def test_a_wrong_graph_is_not_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("version: 3\nnodes: {}\n")
    assert main(["graph", str(path), "-f", "svg"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "bad.yaml:1:10: version: must be 1, not 3" in said.err
