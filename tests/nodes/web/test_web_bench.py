from __future__ import annotations

import pytest

from nodes.web import bench


def test_viewers_of_every_kind_are_counted(monkeypatch, tmp_path):
    (tmp_path / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    monkeypatch.setattr(bench, "CASES", {"one of each": (1, 1, 1)})
    said = []
    (row,) = bench.measure(size="128x96", seconds=8, progress=said.append)
    assert said == ["one of each"]
    assert row.viewers == "one of each"
    assert row.fps > 0
    assert 0 < row.age_ms[0] <= row.age_ms[1]
    assert row.process_ms > 0
    assert row.seen_fps is not None
    assert 0 < row.seen_fps[0] <= row.seen_fps[1]
    assert row.cpu > 0


def test_viewers_that_fail_are_no_figures(monkeypatch, tmp_path):
    import streamer

    (tmp_path / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    monkeypatch.setattr(bench, "CASES", {"too many": (-1, "x", 1)})
    with pytest.raises(streamer.RunError, match="the viewers of the case 'too many' failed"):
        bench.measure(size="128x96", seconds=0.5)
