from __future__ import annotations

import cv2
import numpy as np
import pytest


def _rgb(name, size=None):
    from skimage import data  # here, as not all tests beside this need it

    picture = getattr(data, name)()
    if picture.ndim == 2:
        picture = np.stack([picture] * 3, axis=-1)
    if size is not None:
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(picture)


@pytest.fixture(scope="session")
def photographs():
    """Photographs of several sizes, odd ones among them: rgb, uint8."""
    return {
        "astronaut": _rgb("astronaut"),
        "coffee": _rgb("coffee", (301, 199)),
        "chelsea": _rgb("chelsea"),
        "camera": _rgb("camera", (256, 256)),
        "page": _rgb("page"),
    }


@pytest.fixture(scope="session")
def astronaut(photographs):
    return photographs["astronaut"]
