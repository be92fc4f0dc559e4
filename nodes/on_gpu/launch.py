"""One seam between nodes and devices: a kernel by name, on CUDA or on a simulated GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from streamer import NodeError

Scalar = int | float
BLOCK: Final = (32, 8)
"""threads of a block, across and down"""
# Contraction would round differently from the CPU twin.
OPTIONS: Final = ("--std=c++14", "--fmad=false")


def launch(
    name: str,
    grid: tuple[int, int],
    out: Any,
    sources: Sequence[Any],
    scalars: Sequence[Scalar],
) -> None:
    """Puts a kernel into this thread's stream; it does not wait.

    Args:
        name: of the kernel in `kernels.cu`.
        grid: threads across and down; kernels leave out what is beyond.
        out: uint8 array that it fills, from `frame.cupy()` or `Scratch`.
        sources: arrays of the same device that it reads.
        scalars: passed after the sources; integers as int32, the others as float32.

    Raises:
        NodeError: the kernels cannot be compiled here.
    """
    if hasattr(out, "compute"):  # a simulated GPU
        from nodes.on_gpu import twin

        twin.library()  # built here and now, as CuPy does it, and not while the stream waits
        out.compute(partial(twin.run, name, grid, tuple(scalars), tuple(out.shape)), *sources)
        return
    import numpy as np

    numbers = [
        np.int32(value) if isinstance(value, int) else np.float32(value) for value in scalars
    ]
    # CuPy launches on the current stream: `frame.cupy()` has made this thread's current.
    _kernel(name)(blocks(grid), (*BLOCK, 1), (out, *sources, *numbers))


def blocks(grid: tuple[int, int]) -> tuple[int, int]:
    """Blocks across and down that cover a grid of threads."""
    return -(-grid[0] // BLOCK[0]), -(-grid[1] // BLOCK[1])


@cache
def source() -> str:
    """The kernels' source."""
    return (Path(__file__).parent / "kernels.cu").read_text(encoding="ascii")


@cache
def _kernel(name: str) -> Any:
    import cupy

    try:
        return _module().get_function(name)
    except (RuntimeError, cupy.cuda.compiler.CompileException) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise NodeError(
            f"the kernels for colours and sizes cannot be compiled for this GPU: {reason}; "
            "CuPy's extra [ctk] brings the compiler and its headers: "
            "pip install 'cupy-cuda13x[ctk]' (or cupy-cuda12x)"
        ) from error


@cache
def _module() -> Any:
    import cupy

    # Compiled for each device when first used there, and kept by CuPy on disk.
    return cupy.RawModule(code=source(), options=OPTIONS)
