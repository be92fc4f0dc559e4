"""Where and when something was measured, without which a figure says nothing."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from streamer import gpu
from streamer.bench.acceptance.requirements import ROOT

_PACKAGES: Final = (
    *("torch", "cupy-cuda13x", "cupy-cuda12x", "diffusers", "transformers", "av", "numpy"),
    *("torchao", "torch_tensorrt"),
)
_DRIVER: Final = Path("/proc/driver/nvidia/version")
_CLOCKS: Final = "clocks.sm,clocks.max.sm,clocks.mem,power.limit,persistence_mode"


def describe(*, fake: bool) -> dict[str, str]:
    """What a table must name, by name.

    Args:
        fake: whether the GPU is simulated, and has no driver.

    Raises:
        DeviceError: there is no GPU.
    """
    device = gpu.device(0)
    about = {"GPU": f"{device.name} {device.uuid}"}
    if not fake:
        about["driver"] = _driver()
        if clocks := _clocks():
            about["clocks"] = clocks
    return {
        **about,
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(_versions()),
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
    }


def _driver() -> str:
    text = _DRIVER.read_text() if _DRIVER.exists() else ""
    found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", text)
    return found[0] if found else "unknown"


def _clocks() -> str:
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    try:
        done = subprocess.run(
            [command, f"--query-gpu={_CLOCKS}", "--format=csv,noheader", "--id=0"],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    values = done.stdout.strip().split(", ")
    names = _CLOCKS.split(",")
    if done.returncode or len(values) != len(names):
        return ""
    return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))


def _versions() -> list[str]:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:  # no git
        return "unknown"
    return done.stdout.strip() or "unknown"
