"""GPUs, as the driver, torch and CuPy see them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from streamer.doctor.finding import Finding, Status

_AREA: Final = "See"
_DRIVER: Final = "install the NVIDIA driver, or run on the CPU, which works"
_CUPY_PACKAGES: Final = ("cupy-cuda12x", "cupy-cuda13x", "cupy")
_QUERY: Final = "name,memory.total,driver_version"


def look() -> Iterator[Finding]:
    """The GPUs that the driver shows, then whether torch and CuPy can use them."""
    names = _driver_gpus()
    if isinstance(names, str):
        yield Finding(area=_AREA, name="GPU", status=Status.WARN, detail=names, advice=_DRIVER)
    else:
        for number, name in enumerate(names):
            yield Finding(area=_AREA, name=f"GPU {number}", status=Status.OK, detail=name)
    has_gpu = not isinstance(names, str)
    yield _torch(has_gpu)
    yield from _cupy(has_gpu)


def _driver_gpus() -> list[str] | str:
    """Lines of nvidia-smi, or why there are none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "none found: there is no nvidia-smi"
    try:
        done = subprocess.run(
            [program, f"--query-gpu={_QUERY}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi does not answer: {error}"
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not lines:
        return f"nvidia-smi sees none: {(done.stderr or done.stdout).strip() or 'no output'}"
    return lines


def _torch(has_gpu: bool) -> Finding:
    import torch

    if torch.cuda.is_available():
        seen = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
        return Finding(
            area=_AREA, name="torch device", status=Status.OK, detail=f"uses {', '.join(seen)}"
        )
    threads = torch.get_num_threads()
    detail = f"uses the CPU, {threads} thread{'s' * (threads > 1)}"
    if not has_gpu:
        return Finding(area=_AREA, name="torch device", status=Status.OK, detail=detail)
    return Finding(
        area=_AREA,
        name="torch device",
        status=Status.WARN,
        detail=detail + " although there is a GPU",
        advice="install torch for CUDA, see pytorch.org/get-started",
    )


def _cupy(has_gpu: bool) -> Iterator[Finding]:
    package = next((name for name in _CUPY_PACKAGES if _installed(name)), None)
    if package is None:
        if has_gpu:
            yield Finding(
                area=_AREA,
                name="CuPy",
                status=Status.WARN,
                detail="not installed; frames cannot stay on the GPU between nodes",
                advice="pip install 'sdxs-streamer[cuda12]' (or [cuda13])",
            )
        return
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
        cupy.zeros(1).sum().item()
    except Exception as error:  # CuPy raises its own types for each way a driver can be broken
        yield Finding(
            area=_AREA,
            name="CuPy",
            status=Status.WARN,
            detail=f"{package} {version(package)} does not work: {str(error).splitlines()[0]}",
            advice="install the extra that fits the driver: cuda12 or cuda13",
        )
        return
    yield Finding(
        area=_AREA, name="CuPy", status=Status.OK, detail=f"{version(package)}, {count} GPUs"
    )


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
