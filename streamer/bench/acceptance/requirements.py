"""What a machine lacks to run the acceptance, all of it at once.

`python -m streamer.bench.acceptance.requirements FOLDER` prints which packages, of those that have
wheels in a folder, are missing or too old here. It imports no package that could be missing.
"""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

from streamer import gpu
from streamer.errors import DeviceError

ROOT: Final = Path(__file__).parents[3]
"""of the checkout"""

_NEEDED: Final = (
    # the engine
    *("numpy", "pyzmq", "msgpack", "pydantic", "pyyaml", "typer", "rich"),
    # nodes and models
    *("av", "opencv-python-headless", "torch", "diffusers", "transformers", "safetensors"),
    *("huggingface-hub", "pillow"),
    # tests
    *("pytest", "hypothesis"),
)
# Some packages come under several names, for several CUDAs or with more in them.
_ALSO: Final = {
    "opencv-python-headless": (
        *("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
    ),
}
_CUPY: Final = ("cupy-cuda13x", "cupy-cuda12x", "cupy")
_LEFT_ALONE: Final = ("torch", "numpy", "pillow", "opencv-python-headless")
"""packages whose own requirements are the affair of whoever has installed them"""
_REQUIREMENT: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?(?P<bounds>[^;]*)")


def missing(*, fake: bool) -> list[str]:
    """A line for each thing that is missing or too old, and how to get it.

    Args:
        fake: whether there need be no GPU.
    """
    lowest = lowest_versions()
    found = [line for name in _NEEDED if (line := _lacking(name, lowest.get(name, "")))]
    found += _lacking_for_others()
    if fake:
        return found
    if line := _lacking_cupy(lowest):
        return [*found, line, *_no_driver()]
    try:
        gpu.device(0)
    except DeviceError as error:
        return [*found, f"no GPU: {error}"]
    if shutil.which("nvidia-smi") is None and not Path("/dev/nvidiactl").exists():
        found += _no_driver()
    import_error = _torch_without_cuda()
    return [*found, import_error] if import_error else found


def to_install(wheels: Path) -> list[str]:
    """Names of the packages with wheels in a folder that are missing here or too old.

    Args:
        wheels: the folder.
    """
    lowest = lowest_versions()
    names = {path.name.split("-")[0].replace("_", "-").lower() for path in wheels.glob("*.whl")}
    return sorted(
        name
        for name in names
        if (found := _version(name)) is None or is_lower(found, lowest.get(name, ""))
    )


def lowest_versions() -> dict[str, str]:
    """The lowest version of each package that `pyproject.toml` names, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    found = {}
    for text in [*project["dependencies"], *(one for extra in extras.values() for one in extra)]:
        parts = _REQUIREMENT.match(text)
        assert parts is not None
        at_least = re.search(r">=\s*([0-9.]+)", parts["bounds"])
        found[parts["name"].lower()] = at_least[1] if at_least else ""
    return found


def is_lower(found: str, lowest: str) -> bool:
    """Whether a version is lower than another; what stands after the numbers does not count."""
    return _numbers(found) < _numbers(lowest)


def _numbers(text: str) -> tuple[int, ...]:
    numbers = re.match(r"\d+(\.\d+)*", text)
    parts = [int(part) for part in numbers[0].split(".")] if numbers else []
    return tuple([*parts, 0, 0, 0][:4])


def _lacking(name: str, lowest: str) -> str:
    installed = next(filter(None, map(_version, (name, *_ALSO.get(name, ())))), None)
    wanted = f"{name}>={lowest}" if lowest else name
    if installed is None:
        return f"Python package {name}: pip install '{wanted}', or --wheels DIR with its wheel"
    if lowest and is_lower(installed, lowest):
        return f"Python package {name} {installed} is too old: pip install '{wanted}'"
    return ""


def _lacking_for_others() -> list[str]:
    """What packages that are there need themselves."""
    try:
        from packaging.requirements import Requirement
    except ImportError:  # pytest brings it, and is missed already
        return []
    found: dict[str, str] = {}
    seen = set(_LEFT_ALONE)
    waiting = [name for name in _NEEDED if _version(name) is not None]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for text in requires(name) or ():
            needed = Requirement(text)
            other = re.sub(r"[-_.]+", "-", needed.name).lower()
            if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
                continue
            if _version(other) is not None:
                waiting.append(other)
            elif other not in _NEEDED:
                found[other] = (
                    f"Python package {other}, which {name} needs: pip install {other}, or "
                    "--wheels DIR with its wheel"
                )
    return [found[name] for name in sorted(found)]


def _lacking_cupy(lowest: dict[str, str]) -> str:
    installed = next(((name, found) for name in _CUPY if (found := _version(name))), None)
    if installed is None:
        return (
            "Python package CuPy: pip install cupy-cuda13x (or cupy-cuda12x), or --wheels DIR "
            "with its wheel"
        )
    name, found = installed
    least = lowest["cupy-cuda13x"]
    if is_lower(found, least):
        return f"Python package {name} {found} is too old: pip install '{name}>={least}'"
    return ""


def _no_driver() -> list[str]:
    if Path("/dev/nvidiactl").exists():
        return []
    return ["no GPU: there is no /dev/nvidiactl (NVIDIA driver, or --gpus all for a container)"]


def _torch_without_cuda() -> str:
    if _version("torch") is None:
        return ""  # said already
    import torch

    if torch.cuda.is_available():
        return ""
    return f"torch {torch.__version__} sees no GPU: it must be built for the driver's CUDA"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    for name in to_install(Path(sys.argv[1])):
        print(name)
