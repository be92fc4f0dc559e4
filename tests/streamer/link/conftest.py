"""Links are tested in each memory that frames can lie in."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import links
import pytest

from streamer import gpu
from streamer.gpu import simulated


@pytest.fixture
def simulated_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A simulated GPU for this process and those that it starts; nothing may go wrong on it."""
    folder = simulated.make(tmp_path / "gpu")
    monkeypatch.setenv(gpu.SIMULATED, str(folder))
    monkeypatch.setattr(gpu, "_devices", {})
    yield folder
    links.close_all()
    gc.collect()
    assert simulated.violations(folder) == []


@pytest.fixture(params=["memfd", "cuda"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The memory that links made by `links` use."""
    if request.param == "cuda":
        folder = request.getfixturevalue("simulated_gpu")
        simulated.change(folder, delay=0.0002)
    monkeypatch.setattr(links, "memory", request.param)
    kind: str = request.param
    return kind
