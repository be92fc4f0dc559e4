"""A GPU for which the kernels cannot be compiled: one sentence, whatever CuPy raises."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from nodes.on_gpu import launch
from streamer import NodeError


class CompileError(Exception):
    """As `cupy.cuda.compiler.CompileException`."""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    launch._kernel.cache_clear()
    launch._module.cache_clear()


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (
            RuntimeError("Failed to find CUDA headers.\nInstall them."),
            "Failed to find CUDA headers",
        ),
        (CompileError("k.cu(3): error: it is wrong\n1 error"), "k.cu(3): error: it is wrong"),
        (RuntimeError(), "RuntimeError"),
    ],
    ids=["headers", "source", "silent"],
)
def test_it_is_told_in_a_sentence(
    raised: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_function(name: str) -> Any:
        raise raised

    fake = SimpleNamespace(
        RawModule=lambda **_: SimpleNamespace(get_function=get_function),
        cuda=SimpleNamespace(compiler=SimpleNamespace(CompileException=CompileError)),
    )
    monkeypatch.setitem(sys.modules, "cupy", fake)
    with pytest.raises(NodeError) as caught:
        launch.launch("scale", (4, 4), object(), (), (1, 2.0))
    assert str(caught.value) == (
        f"the kernels for colours and sizes cannot be compiled for this GPU: {reason}; "
        "CuPy's extra [ctk] brings the compiler and its headers: "
        "pip install 'cupy-cuda13x[ctk]' (or cupy-cuda12x)"
    )
