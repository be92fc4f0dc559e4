"""NVIDIA's own compiler takes the kernels for several generations of GPUs; it needs none itself."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from nodes.on_gpu import launch


def _library() -> Path | None:
    """The compiler as its Python package `nvidia-cuda-nvrtc` brings it."""
    found = importlib.util.find_spec("nvidia")
    for folder in (found.submodule_search_locations or ()) if found else ():
        for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")):
            return path
    return None


LIBRARY = _library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="needs nvidia-cuda-nvrtc, of Linux only")


@cache
def nvrtc() -> ctypes.CDLL:
    return ctypes.CDLL(str(LIBRARY))


def asked(program: ctypes.c_void_p, what: str) -> bytes:
    """The log or the result of a program."""
    size = ctypes.c_size_t()
    assert getattr(nvrtc(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    text = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc(), f"nvrtcGet{what}")(program, text) == 0
    return text.raw


@pytest.fixture
def compiled() -> Callable[[str, str], tuple[bytes, str]]:
    """Compiles for a generation of GPUs with the product's options: the code, what was said."""

    def run(source: str, architecture: str) -> tuple[bytes, str]:
        program = ctypes.c_void_p()
        text = source.encode("ascii")
        create = nvrtc().nvrtcCreateProgram
        assert create(ctypes.byref(program), text, b"kernels.cu", 0, None, None) == 0
        try:
            options = [one.encode() for one in (*launch.OPTIONS, f"-arch={architecture}")]
            array = (ctypes.c_char_p * len(options))(*options)
            status = nvrtc().nvrtcCompileProgram(program, len(options), array)
            said = asked(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            return asked(program, "CUBIN") if status == 0 else b"", said
        finally:
            nvrtc().nvrtcDestroyProgram(ctypes.byref(program))

    return run


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90", "sm_120"])
def test_every_kernel_is_compiled_without_a_warning(
    compiled: Callable[[str, str], tuple[bytes, str]], architecture: str
) -> None:
    code, said = compiled(launch.source(), architecture)
    assert said == ""
    assert code.startswith(b"\x7fELF")
    names = re.findall(r"__global__ void (\w+)", launch.source())
    assert names
    for name in names:
        assert f".text.{name}\0".encode() in code, f"{name} is not in the code for {architecture}"


def test_what_only_a_cpu_would_take_is_refused(
    compiled: Callable[[str, str], tuple[bytes, str]],
) -> None:
    code, said = compiled(launch.source() + "\n#include <vector>\n", "sm_90")
    assert code == b""
    assert "vector" in said
