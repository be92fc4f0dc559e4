"""Versions of Python and of the libraries that matter."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from streamer import __version__
from streamer.doctor.finding import Finding, Status

_AREA: Final = "Versions"
_ESSENTIAL: Final = {
    "torch": "torch",
    "av": "av",
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "zmq": "pyzmq",
    "msgpack": "msgpack",
    "diffusers": "diffusers",
    "safetensors": "safetensors",
}
# Imported in full only where that is quick and tells more than the version.
_IMPORTED: Final = ("torch", "av", "numpy", "cv2", "zmq", "msgpack", "safetensors")


def look() -> Iterator[Finding]:
    """Python, the engine and its dependencies."""
    python = platform.python_version()
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding(
        area=_AREA,
        name="Python",
        status=Status.OK if good else Status.WARN,
        detail=f"{python} on {platform.system()} {platform.machine()}, streamer {__version__}",
        advice="" if good else "use Python 3.11, 3.12 or 3.13",
    )
    for module, package in _ESSENTIAL.items():
        yield _library(module, package)
    yield _openvino()


def _library(module: str, package: str) -> Finding:
    advice = f"pip install {package}"
    try:
        detail = version(package)
        if module in _IMPORTED:
            imported = import_module(module)
            detail += _more(module, imported)
    except PackageNotFoundError:
        return Finding(
            area=_AREA, name=package, status=Status.FAIL, detail="not installed", advice=advice
        )
    except (ImportError, OSError) as error:
        return Finding(
            area=_AREA,
            name=package,
            status=Status.FAIL,
            detail=f"cannot be imported: {error}",
            advice=f"{advice} --force-reinstall",
        )
    return Finding(area=_AREA, name=package, status=Status.OK, detail=detail)


def _more(module: str, imported: object) -> str:
    if module == "av":
        return f", FFmpeg {getattr(imported, 'ffmpeg_version_info', '?')}"
    if module == "torch":
        cuda = getattr(getattr(imported, "version", None), "cuda", None)
        return f", built for CUDA {cuda}" if cuda else ", built for the CPU"
    if module == "zmq":
        return f", libzmq {getattr(imported, 'zmq_version', lambda: '?')()}"
    return ""


def _openvino() -> Finding:
    try:
        return Finding(area=_AREA, name="openvino", status=Status.OK, detail=version("openvino"))
    except PackageNotFoundError:
        return Finding(
            area=_AREA,
            name="openvino",
            status=Status.WARN,
            detail="not installed; the model runs slower on the CPU without it",
            advice="pip install openvino",
        )
