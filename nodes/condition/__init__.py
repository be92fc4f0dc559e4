"""Control pictures for ControlNets: sketch, Canny, soft edges, luminance, depth, and mixtures.

    from nodes.condition.on_opencv import OpenCvExtractor  # or on_torch, for GPUs
    from nodes.condition.settings import setting

    draw = OpenCvExtractor([setting("canny", low=50, high=150)])
    control = draw.picture(picture)  # uint8, height × width × 3 in, height × width out

Importing this package loads neither torch nor OpenCV.
"""

from __future__ import annotations

from nodes.condition.node import Condition
from nodes.condition.params import ConditionParams

__all__ = ["Condition", "ConditionParams"]
