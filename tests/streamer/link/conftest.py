"""Links are tested in each memory that frames can lie in."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import links
import pytest
import zmq

from streamer import gpu
from streamer.gpu import simulated


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made: zmq.Context[Any] = zmq.Context()
    yield made
    links.close_all()
    made.destroy(linger=0)


@pytest.fixture
def simulated_gpu(
    old_heap: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A simulated GPU for this process and those that it starts; nothing may go wrong on it."""
    folder = simulated.make(tmp_path / "gpu")
    monkeypatch.setenv(gpu.SIMULATED, str(folder))
    monkeypatch.setattr(gpu, "_devices", {})
    yield folder
    links.close_all()
    gc.collect()
    assert simulated.violations(folder) == []


@pytest.fixture(params=["memfd", "cuda", pytest.param("gpu", marks=pytest.mark.gpu)])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The memory that links made by `links` use: `cuda` is simulated, `gpu` is real."""
    kind = "memfd" if request.param == "memfd" else "cuda"
    if request.param == "cuda":
        folder = request.getfixturevalue("simulated_gpu")
        simulated.change(folder, delay=0.0002)
    elif request.param == "gpu":
        request.getfixturevalue("real_gpu")
    monkeypatch.setattr(links, "memory", kind)
    monkeypatch.setenv("LINKS_MEMORY", kind)
    return kind
