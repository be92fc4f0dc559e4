"""On a real GPU the kernels give the very bytes of their CPU twin, for which all else is tested."""

from __future__ import annotations

import numpy as np
import pytest
from on_gpu_stage import waves, yuv_of

from nodes.colour import Colour
from nodes.on_gpu import pictures, twin
from nodes.on_gpu.pictures import Picture
from nodes.planes import Turn
from nodes.sizes import Rect
from streamer.formats import picture_shape

pytestmark = pytest.mark.gpu
COLOURS = [Colour(s, full) for s in ("bt601", "bt709", "bt2020") for full in (False, True)]


class Heap(np.ndarray):
    def compute(self, function, *sources):
        self[...] = function(*(np.asarray(source) for source in sources))


def both(real_gpu, make, shape, *arrays):
    """What `make` gives by the device and by the twin."""
    if twin.compiler() is None:
        pytest.skip("needs g++ for the kernels' twin")
    import cupy

    real_gpu.stream()
    out, expected = cupy.zeros(shape, cupy.uint8), np.zeros(shape, np.uint8).view(Heap)
    make(out, *(cupy.asarray(array) for array in arrays))
    make(expected, *arrays)
    return cupy.asnumpy(out), np.asarray(expected)


@pytest.mark.parametrize("colour", COLOURS, ids=str)
def test_colours(real_gpu, colour):
    rgb = np.random.default_rng(3).integers(0, 256, (98, 130, 3), dtype=np.uint8)
    yuv = np.random.default_rng(4).integers(0, 256, (147, 130), dtype=np.uint8)
    for format in ("nv12", "yuv420p"):
        down, expected = both(
            real_gpu,
            lambda out, a, f=format: pictures.convert_to_rgb(
                out, Picture.of(a, f, 130, 98), colour
            ),
            (98, 130, 3),
            yuv,
        )
        assert (down == expected).all()
        down, expected = both(
            real_gpu,
            lambda out, a, f=format: pictures.convert_to_yuv(
                out, f, Picture.of(a, "rgb24", 130, 98), colour
            ),
            (147, 130),
            rgb,
        )
        assert (down == expected).all()


@pytest.mark.parametrize("size", [(64, 48), (130, 98), (300, 212), (64, 212)])
@pytest.mark.parametrize("format", ["rgb24", "gray", "nv12"])
@pytest.mark.parametrize("source", ["rgb24", "rgba", "yuv420p"])
def test_scaling(real_gpu, source, format, size):
    if format == "nv12" and source != "yuv420p":
        pytest.skip("YUV is scaled from YUV")
    colour = Colour("bt709", False)
    rgb = waves(130, 98)
    array = {
        "rgb24": rgb,
        "rgba": np.concatenate([rgb, rgb[..., :1]], axis=-1),
        "yuv420p": yuv_of(rgb, "yuv420p", colour),
    }[source]
    width, height = size
    down, expected = both(
        real_gpu,
        lambda out, a: pictures.scale(
            out, format, size, Picture.of(a, source, 130, 98),
            part=Rect(6, 8, 100, 80), target=Rect(4, 2, width - 8, height - 6), colour=colour,
            mirror=Turn(False, True, True), background=(9, 99, 199), chroma="cubic",
        ),
        picture_shape(format, width, height),
        array,
    )  # fmt: skip
    assert (down == expected).all()
