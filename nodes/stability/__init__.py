"""How steady a styled video is, measured: against the motion of its source, and at rest.

    from nodes.stability import Steadiness

    steadiness = Steadiness()
    for picture, styled in video:
        steadiness.add(picture, styled)
    print(steadiness.result())

Needs OpenCV for the optical flow; torch is not loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nodes.stability.measures import flicker, warp_error
    from nodes.stability.steadiness import Result, Steadiness

__all__ = ["Result", "Steadiness", "flicker", "warp_error"]


def __getattr__(name: str) -> Any:
    # Imported when first asked for: the benchmark's command is registered without NumPy.
    if name in ("flicker", "warp_error"):
        from nodes.stability import measures

        return getattr(measures, name)
    if name in ("Result", "Steadiness"):
        from nodes.stability import steadiness

        return getattr(steadiness, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
