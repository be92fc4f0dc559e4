"""What keeps video still does the same to tensors as to arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from nodes.sdxs import OneStep
from nodes.sdxs.late import Late
from nodes.sdxs.on_arrays import OnArrays
from nodes.sdxs.on_tensors import OnTensors
from nodes.sdxs.steady import Outcome, Steady


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param != "cpu" and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    return torch.device(request.param)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scene(number: int = 0, side: int = 96) -> Any:
    """A picture of soft shapes; drawn, as photographs take a package that few GPUs have."""
    coarse = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def there(picture: Any, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).to(device)


def apart(tensor: torch.Tensor, array: Any) -> int:
    return int(np.abs(tensor.cpu().numpy().astype(int) - array).max())


def test_pictures_are_mixed_alike(device: torch.device) -> None:
    image, before = scene(), scene()
    before[30:60, 30:60] ^= 128  # something has moved there
    result, out = scene(1), scene(2)
    mixed = out.copy()
    OnArrays().mix(image, before, result, mixed, 0.35)
    own = there(out, device)
    OnTensors(device).mix(*(there(one, device) for one in (image, before, result)), own, 0.35)
    assert apart(own, mixed) <= 1
    assert np.array_equal(mixed[40:50, 40:50], out[40:50, 40:50])
    assert np.abs(mixed.astype(int) - out).max() > 20


def test_pictures_shrink_and_grow_alike(device: torch.device) -> None:
    arrays, tensors, image = OnArrays(), OnTensors(device), scene()
    small = arrays.shrunk(image, 48, 48)
    assert apart(tensors.shrunk(there(image, device), 48, 48), small) <= 1
    whole, own = np.empty_like(image), there(image, device)
    arrays.enlarge(small, whole)
    tensors.enlarge(there(small, device), own)
    # Both cubic, with other constants: alike on the whole, not at every edge.
    assert np.abs(own.cpu().numpy().astype(int) - whole).mean() < 1.5
    assert whole.std() > 20


def test_looks_are_compared_alike(device: torch.device) -> None:
    arrays, tensors = OnArrays(), OnTensors(device)
    one, other = scene(), scene(1)
    expected = arrays.difference(arrays.look(one), arrays.look(other))
    looks = tensors.look(there(one, device)), tensors.look(there(other, device))
    found = [tensors.difference(*looks) for _ in range(2)]
    # A GPU tells of the two before.
    assert found[0] == (None if device.type == "cuda" else pytest.approx(expected, abs=1e-3))
    assert found[1] == pytest.approx(expected, abs=1e-3)
    assert expected is not None
    assert expected > 10


@pytest.mark.parametrize(
    "settings", [{}, {"feedback": 0.3}, {"drift": 3}, {"halvings": 1, "smaller": True}], ids=str
)
@pytest.mark.parametrize("model", ["bundled", "random:tiny"])
def test_a_video_is_the_same(device: torch.device, model: str, settings: dict[str, Any]) -> None:
    more: dict[str, Any] = {"backend": "torch", "dtype": "float32", "threads": 1}
    if model == "random:tiny":
        more["control"] = "random"
    engine = OneStep.load(model, device=str(device), **more)
    engine.prompt = "ink"
    on_arrays, on_tensors = Steady(engine), Steady(engine.sibling())
    for steady in (on_arrays, on_tensors):
        for name, value in settings.items():
            setattr(steady, name, value)
    for shift in range(3):
        image = np.ascontiguousarray(np.roll(scene(), 4 * shift, axis=1))
        out, own = np.empty_like(image), there(image, device)
        assert on_arrays(image, out) is Outcome.PAINTED
        assert on_tensors(there(image, device), own) is Outcome.PAINTED
        difference = np.abs(own.cpu().numpy().astype(int) - out)
        assert difference.mean() < (2 if "halvings" in settings else 0.3)
        assert out.std() > 5


def test_what_is_not_finite_on_a_gpu_is_mended_there(device: torch.device) -> None:
    """The flag is a tensor, as an engine on a GPU gives it; nobody looks at it meanwhile."""
    on, out = OnTensors(device), there(scene(), device)
    result = there(scene(1), device)
    fine, spoiled = torch.tensor(True, device=device), torch.tensor(False, device=device)
    assert on.spoiled(fine, out, result) is None
    assert apart(out, scene()) == 0
    assert on.spoiled(spoiled, out, result) is None
    assert apart(out, scene(1)) == 0
    assert on.spoiled(spoiled, out, None) is None
    assert int(out.max()) == 0
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    assert on.spoiled_before() == 2
    assert on.spoiled_before() == 0
    assert on.spoiled(True, out, result) is False
    assert on.spoiled(False, out, result) is True


def test_a_smaller_picture_that_is_not_finite_shows_the_last_good_one(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady = Steady(OneStep.load("bundled", backend="torch", device=str(device), threads=1))
    steady.smaller, steady.halvings = True, 1
    good, out = there(np.zeros((96, 96, 3), np.uint8), device), there(scene(), device)
    steady(there(scene(), device), good)
    paint = steady.engine.paint_jobs

    def spoiling(jobs: Any) -> None:
        paint(jobs)
        for job in jobs:
            job.out.zero_()
            job.finite = torch.tensor(False, device=device)

    monkeypatch.setattr(steady.engine, "paint_jobs", spoiling)
    steady(there(scene(3), device), out)
    assert float((out.float() - good.float()).abs().mean()) < 8  # shrunk and enlarged again


def test_late_values_come_in_order(device: torch.device) -> None:
    late = Late(device)
    for number in range(5):
        late.put(torch.tensor(number, device=device))
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    assert late.take() == [0, 1, 2, 3, 4]
    assert late.take() == []
