"""Classical drawing and painting operators: what the bundled model is taught to imitate.

Each operator is a deterministic function of the picture alone. That is deliberate: a network that
is trained with a pixel loss learns the average of everything that it cannot foresee, so random
hatching would be learnt as a grey blur, and an operator that jumps from frame to frame would teach
the network to flicker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nodes.sdxs.styles.drawing import ink, pencil
from nodes.sdxs.styles.flat import comic
from nodes.sdxs.styles.glowing import neon
from nodes.sdxs.styles.painting import oil, watercolor

Picture: TypeAlias = NDArray[np.uint8]
Operator: TypeAlias = Callable[[Picture], Picture]

OPERATORS: dict[str, Operator] = {
    "ink": ink,
    "oil": oil,
    "comic": comic,
    "pencil": pencil,
    "watercolor": watercolor,
    "neon": neon,
}
"""Every style's operator: uint8 HWC RGB in, uint8 of the same shape out."""

__all__ = [
    "OPERATORS",
    "Operator",
    "Picture",
    "comic",
    "ink",
    "neon",
    "oil",
    "pencil",
    "watercolor",
]
