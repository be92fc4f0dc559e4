"""A node for graphs on a simulated GPU."""

from __future__ import annotations

import numpy as np

import streamer


class Invert(streamer.Transform[streamer.Params]):
    """Turns pictures into their negatives, on the GPU, as a model would."""

    memory = ("cuda",)

    def process(self, frame: streamer.Frame) -> streamer.Frame:
        out = self.context.allocate(frame.width, frame.height, like=frame.header)
        out.cupy().compute(lambda pixels: np.uint8(255) - pixels, frame.cupy())
        return out
