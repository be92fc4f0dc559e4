"""A node for graphs on a GPU."""

from __future__ import annotations

import numpy as np

import streamer


class Invert(streamer.Transform[streamer.Params]):
    """Turns pictures into their negatives, on the GPU, as a model would."""

    memory = ("cuda",)

    def process(self, frame: streamer.Frame) -> streamer.Frame:
        out = self.context.allocate(frame.width, frame.height, like=frame.header)
        made, seen = out.cupy(), frame.cupy()
        if hasattr(made, "compute"):  # a simulated GPU
            made.compute(lambda pixels: np.uint8(255) - pixels, seen)
        else:
            import cupy

            cupy.subtract(np.uint8(255), seen, out=made)
        return out
