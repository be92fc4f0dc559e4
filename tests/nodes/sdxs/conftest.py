from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nodes.sdxs import OneStep
from nodes.sdxs.distill.pictures import held_out


@pytest.fixture(scope="session")
def loaded() -> OneStep:
    return OneStep.load("bundled", threads=2)


@pytest.fixture
def engine(loaded: OneStep) -> OneStep:
    """The bundled model with every setting as after loading."""
    loaded.prompt = loaded.prompts[0]
    loaded.conditioning_scale = 1.0
    loaded.seed = 0
    return loaded


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    return held_out("astronaut", size=256)


@pytest.fixture(scope="session")
def coffee() -> NDArray[np.uint8]:
    return held_out("coffee", size=256)
