"""A simulated GPU and, where there is one, a real one."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.on_gpu import twin
from streamer import gpu
from streamer.gpu import simulated
from streamer.gpu.device import Device


@pytest.fixture
def simulated_gpu(
    old_heap: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A simulated GPU for this process and those that it starts; nothing may go wrong on it."""
    if twin.compiler() is None:
        pytest.skip("needs g++ for the kernels' twin")
    folder = simulated.make(tmp_path / "gpu", delay=0.0005)
    monkeypatch.setenv(gpu.SIMULATED, str(folder))
    monkeypatch.setattr(gpu, "_devices", {})
    yield folder
    gc.collect()
    assert simulated.violations(folder) == []
    assert simulated.used(folder) == 0


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    """A GPU, each in turn."""
    if request.param == "real":
        real: Device = request.getfixturevalue("real_gpu")
        return real
    request.getfixturevalue("simulated_gpu")
    return gpu.device(0)
