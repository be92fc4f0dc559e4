"""One-step diffusion on pictures, usable without any graph.

    from nodes.sdxs import OneStep

    engine = OneStep.load("bundled")
    engine.prompt = "ink"
    styled = engine(picture)  # uint8, height × width × 3, RGB

Importing this package loads neither torch nor OpenVINO; `OneStep.load` loads the one it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nodes.sdxs.engine import OneStep

__all__ = ["OneStep"]


def __getattr__(name: str) -> Any:
    if name == "OneStep":
        from nodes.sdxs.engine import OneStep

        return OneStep
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
