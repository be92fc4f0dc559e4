"""What tests of several parts have in common."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamer import gpu
from streamer.errors import DeviceError
from streamer.gpu.device import Device

# Machines that test accelerators need not have it.
with contextlib.suppress(ImportError):
    import hypothesis

    # How fast the machine is, and what else runs on it, is no test's affair.
    hypothesis.settings.register_profile(
        "at any speed",
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("at any speed")


@pytest.fixture(scope="module")
def old_heap() -> Iterator[None]:
    """Leaves out of collections what was there before the module.

    In a process that has torch and thousands of tests in it each takes a second.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes a file system of so many bytes, as `8m`, and returns its folder."""
    if os.geteuid() != 0:
        pytest.skip("no file system can be mounted here: that takes root")
    folder = tmp_path / "disk"
    mounted = False

    def mount(size: str) -> Path:
        nonlocal mounted
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip("no file system can be mounted here")
        mounted = True
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def real_gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A GPU, by CuPy."""
    monkeypatch.delenv(gpu.SIMULATED, raising=False)
    monkeypatch.setattr(gpu, "_devices", {})
    try:
        return gpu.device(0)
    except DeviceError as error:
        pytest.skip(f"needs an NVIDIA GPU with CuPy: {error}")
