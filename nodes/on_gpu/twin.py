"""The kernels' CPU twin: the same source, compiled by g++, for simulated GPUs and for tests.

The grid's threads run one after the other. Arithmetic is IEEE float32 without contraction, as on
the device, so the bytes are the same.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nodes.on_gpu.launch import BLOCK, Scalar, blocks, source
from streamer import NodeError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.uint8]

_FLAGS: Final = ("-O2", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-w")
_SHIM: Final = """
#include <cstddef>
#define __global__
#define __device__
struct Place { int x, y; };
static thread_local Place blockIdx, threadIdx, blockDim;
"""
_LOOP: Final = """
extern "C" void twin_%(name)s(int columns, int rows, %(parameters)s) {
    blockDim = {%(wide)d, %(high)d};
    for (int by = 0; by < rows; by++) for (int bx = 0; bx < columns; bx++)
        for (int ty = 0; ty < %(high)d; ty++) for (int tx = 0; tx < %(wide)d; tx++) {
            blockIdx = {bx, by};
            threadIdx = {tx, ty};
            %(name)s(%(arguments)s);
        }
}
"""
_KERNEL: Final = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')
_building = threading.Lock()


def compiler() -> str | None:
    """Path of g++; None where there is none."""
    return shutil.which("g++")


def program() -> str:
    """The kernels as C++, with a function for each that runs a whole grid."""
    parts = [_SHIM, source()]
    for name, parameters in _KERNEL.findall(source()):
        names = [one.split()[-1].lstrip("*") for one in parameters.split(",")]
        wide, high = BLOCK
        parts.append(
            _LOOP
            % {
                "name": name,
                "parameters": " ".join(parameters.split()),
                "arguments": ", ".join(names),
                "wide": wide,
                "high": high,
            }
        )
    return "".join(parts)


def run(
    name: str,
    grid: tuple[int, int],
    scalars: Sequence[Scalar],
    shape: tuple[int, ...],
    *sources: Array,
) -> Array:
    """What a kernel makes of arrays in host memory.

    Args:
        name: of the kernel.
        grid: threads across and down.
        scalars: after the sources; integers are int32, the others float32.
        shape: of the result, uint8.
        sources: uint8, of any strides: kernels are told of them by scalars.

    Raises:
        NodeError: there is no compiler.
    """
    import numpy as np

    out = np.empty(shape, np.uint8)
    function = getattr(library(), f"twin_{name}")
    pointers = [ctypes.c_void_p(a.__array_interface__["data"][0]) for a in (out, *sources)]
    numbers: list[Any] = [
        ctypes.c_int(value) if isinstance(value, int) else ctypes.c_float(value)
        for value in scalars
    ]
    function(*(ctypes.c_int(count) for count in blocks(grid)), *pointers, *numbers)
    return out


@cache
def library() -> ctypes.CDLL:
    """The compiled kernels, built if nobody has.

    Raises:
        NodeError: there is no compiler, or it fails.
    """
    with _building:
        text = program()
        name = f"kernels-{hashlib.sha256(text.encode()).hexdigest()[:16]}.so"
        # Beside the simulated devices, where all processes of a run find it.
        folder = os.environ.get("STREAMER_SIMULATED_GPU")
        if folder and not (Path(folder) / name).exists():
            _build(text, Path(folder) / name)
        if folder:
            return ctypes.CDLL(str(Path(folder) / name))
        with tempfile.TemporaryDirectory(prefix="streamer-") as own:
            _build(text, Path(own) / name)
            return ctypes.CDLL(str(Path(own) / name))  # stays mapped without its file


def _build(text: str, path: Path) -> None:
    gxx = compiler()
    if gxx is None:
        raise NodeError(
            "a simulated GPU needs g++ for the kernels, and there is none: apt-get install g++"
        )
    fresh = path.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [gxx, *_FLAGS, "-x", "c++", "-", "-o", str(fresh)],
        input=text,
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise NodeError(f"g++ cannot compile the kernels: {done.stderr.strip()[:2000]}")
    fresh.replace(path)  # whole, even if another process makes it at the same time
