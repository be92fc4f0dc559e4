"""Blends of seeds: how they are written, and that their noise is as strong as one seed's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

from nodes.sdxs import OneStep, seeds
from nodes.sdxs.noise import Noises, mix, slerp
from nodes.sdxs.steady import Outcome, Steady


def gaussian(seed: int, shape: tuple[int, ...] = (1, 4, 64, 64)) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("7", ((7, 1.0),)),
        ("7:0.7 42:0.3", ((7, 0.7), (42, 0.3))),
        ("42:3, 7:1", ((7, 0.25), (42, 0.75))),
        ("7:1 | 42:1", ((7, 0.5), (42, 0.5))),
        ("7 42", ((7, 0.5), (42, 0.5))),
        ("7:0 42:2", ((42, 1.0),)),
        ("7:1 7:1 4294967295:2", ((7, 0.5), (4294967295, 0.5))),
    ],
)
def test_seeds_are_read(text: str, parts: tuple[tuple[int, float], ...]) -> None:
    found = seeds.parse(text)
    assert [seed for seed, _ in found] == [seed for seed, _ in parts]
    assert [share for _, share in found] == pytest.approx([share for _, share in parts])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "seeds is empty; name some as in '7:0.7 42:0.3', or leave it away"),
        ("7:0 42:0", "the weights of seeds '7:0 42:0' must add up to a number above 0"),
        ("7:1e308 8:1e308", "must add up to a number above 0"),
        ("ink:0.7", "'ink:0.7' in seeds is no whole number from 0 to 4294967295"),
        ("4294967296", "'4294967296' in seeds is no whole number from 0 to 4294967295"),
        ("-1:0.5", "'-1:0.5' in seeds is no whole number"),
        ("7:", "'7:' in seeds is no whole number"),
        ("7:-1", "the weight in '7:-1' must be a number from 0"),
        ("7:nan", "the weight in '7:nan' must be a number from 0"),
        ("7:much", "the weight in '7:much' must be a number from 0"),
        (" ".join(map(str, range(17))), "seeds names 17 seeds; at most 16 can be mixed"),
        (7, "seeds must be text as in '7:0.7 42:0.3', not 7"),
    ],
)
def test_seeds_that_make_no_sense_are_refused(text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        seeds.parse(text)


@given(st.text(alphabet="0123456789:.,| -einfa", max_size=60))
def test_weights_of_any_seeds_add_up_to_one(text: str) -> None:
    try:
        parsed = seeds.parse(text)
    except ValueError:
        return
    assert sum(share for _, share in parsed) == pytest.approx(1.0)
    assert all(share > 0 for _, share in parsed)
    assert all(0 <= seed <= seeds.LARGEST for seed, _ in parsed)


@pytest.mark.parametrize("blend", ["linear", "spherical"])
@pytest.mark.parametrize(
    "weights", [(0.7, 0.3), (0.5, 0.5), (0.99, 0.01), (0.2, 0.3, 0.5), (1 / 16,) * 16]
)
def test_mixed_noise_stays_as_strong(blend: str, weights: tuple[float, ...]) -> None:
    mixed = mix([gaussian(seed) for seed in range(len(weights))], weights, blend)
    # 16,384 numbers: the standard error of the variance is 0.011.
    assert float(mixed.var()) == pytest.approx(1.0, abs=0.05)
    assert float(mixed.mean()) == pytest.approx(0.0, abs=0.05)
    assert mixed.dtype == np.float32


def test_a_plain_weighted_mean_would_not_be_as_strong() -> None:
    assert float((0.5 * gaussian(1) + 0.5 * gaussian(2)).var()) < 0.6


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_two_seeds_mixed_spherically_are_slerp(share: float) -> None:
    a, b = gaussian(7), gaussian(42)
    found = mix([a, b], [1 - share, share], "spherical")
    assert np.abs(found - slerp(a, b, share)).max() < 1e-6
    # Also where two noises are alike, and the angle between them is far from a right one.
    c = (a + 0.3 * b).astype(np.float32)
    assert np.abs(mix([a, c], [1 - share, share], "spherical") - slerp(a, c, share)).max() < 1e-5


def test_at_a_right_angle_linear_and_spherical_differ_by_the_way_only() -> None:
    a, b = gaussian(7), gaussian(42)
    half = [mix([a, b], [0.5, 0.5], blend) for blend in ("linear", "spherical")]
    assert np.abs(half[0] - half[1]).max() < 0.05
    third = [mix([a, b], [2 / 3, 1 / 3], blend) for blend in ("linear", "spherical")]
    # Weights 2:1 are tan(30°) = 0.58 to 1 on the arc, and 0.5 to 1 on the straight line.
    assert 0.02 < np.abs(third[0] - third[1]).std() < 0.2


@pytest.mark.parametrize("blend", ["linear", "spherical"])
def test_a_weight_of_one_is_the_seed_itself(blend: str) -> None:
    noises = Noises()
    shape = (1, 4, 8, 8)
    for text, seed in (("7:1 42:0", 7), ("7:0 42:1", 42), ("42", 42)):
        noises.take(seeds.parse(text), blend=blend, turn=0.0)
        assert np.array_equal(noises.of(shape, gaussian), gaussian(seed, shape))


def test_noise_is_drawn_once_for_a_size_until_the_seeds_change() -> None:
    drawn: list[int] = []

    def draw(seed: int, shape: tuple[int, ...]) -> Any:
        drawn.append(seed)
        return gaussian(seed, shape)

    noises, shape = Noises(), (1, 4, 8, 8)
    noises.take(((7, 0.5), (42, 0.5)), blend="linear", turn=0.0)
    first = noises.of(shape, draw)
    assert noises.of(shape, draw) is first
    assert drawn == [7, 42]
    for step in range(1, 8):  # while it turns to the next seeds, these are drawn once
        noises.take(((7, 0.5), (42, 0.5)), blend="linear", turn=step / 8)
        assert float(noises.of(shape, draw).var()) == pytest.approx(1.0, abs=0.25)
    assert drawn == [7, 42, 8, 43]
    noises.take(((7, 0.5), (42, 0.5)), blend="linear", turn=1.0)
    assert np.array_equal(
        noises.of(shape, draw), mix([gaussian(8, shape), gaussian(43, shape)], [0.5, 0.5], "linear")
    )
    noises.take(((1, 1.0),), blend="linear", turn=0.0)
    noises.of(shape, draw)
    assert drawn == [7, 42, 8, 43, 1]
    for side in range(10, 40):
        noises.of((1, 4, side, side), draw)
    noises.of(shape, draw)
    assert drawn.count(1) == 32  # of so many sizes, the first was not kept


@pytest.fixture(scope="module")
def engines() -> dict[str, Any]:
    found = {name: OneStep.load(name, threads=1) for name in ("bundled", "random:tiny")}
    found["bundled"].prompt = "pencil"  # its paper shows the noise best
    return found


@pytest.fixture(params=["bundled", "random:tiny"])
def engine(engines: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[Any]:
    found = engines[request.param]
    yield found
    found.seeds, found.seed, found.blend = None, 0, "linear"


@pytest.fixture
def picture() -> Any:
    return cv2.resize(data.astronaut(), (128, 128), interpolation=cv2.INTER_AREA)


def test_a_blend_of_seeds_lies_between_their_pictures(engine: Any, picture: Any) -> None:
    ends = []
    for seed in (7, 42):
        engine.seed = seed
        ends.append(engine(picture).astype(int))
    for blend in ("linear", "spherical"):
        engine.blend = blend
        engine.seeds = "7:0.9 42:0.1"
        near = engine(picture)
        first, second = (np.abs(near - end).mean() for end in ends)
        assert 0 < first < second
        engine.seeds = "7:1 42:0"
        assert np.array_equal(engine(picture), ends[0])
        engine.seeds = "7:0 42:1"
        assert np.array_equal(engine(picture), ends[1])
    engine.seeds, engine.seed = None, 7
    assert np.array_equal(engine(picture), ends[0])


def test_seeds_that_are_refused_leave_the_old_ones(engine: Any, picture: Any) -> None:
    engine.seeds = "7:0.7 42:0.3"
    before = engine(picture)
    assert "seeds='7:0.7 42:0.3'" in repr(engine)
    for wrong in ("x", "", 7):
        with pytest.raises(ValueError, match="seeds"):
            engine.seeds = wrong
    with pytest.raises(ValueError, match="unknown blend 'cubic'; known are linear and spherical"):
        engine.blend = "cubic"
    assert (engine.seeds, engine.blend) == ("7:0.7 42:0.3", "linear")
    assert np.array_equal(engine(picture), before)


def test_all_seeds_of_a_blend_drift(engine: Any, picture: Any) -> None:
    engine.seeds = "7:0.5 42:0.5"
    steady = Steady(engine)
    steady.drift = 2
    results = []
    for _ in range(3):
        out = np.empty_like(picture)
        steady(picture, out)
        results.append(out)
    engine.turn, engine.seeds = 0.0, "8:0.5 43:0.5"
    assert np.array_equal(results[2], engine(picture))
    assert not np.array_equal(results[1], results[0])
    assert not np.array_equal(results[1], results[2])


@pytest.mark.parametrize("change", [{"seeds": "7:0.5 42:0.5"}, {"blend": "spherical"}])
def test_a_changed_blend_is_painted_although_the_source_is_the_same(
    engine: Any, picture: Any, change: dict[str, str]
) -> None:
    steady, out = Steady(engine), np.empty_like(picture)
    steady.similar = 64.0
    assert steady(picture, out) is Outcome.PAINTED
    assert steady(picture, out) is Outcome.REPEATED
    for name, value in change.items():
        setattr(engine, name, value)
    assert steady(picture, out) is Outcome.PAINTED


def test_styles_of_the_bundled_model_mix_both_ways(engines: dict[str, Any], picture: Any) -> None:
    engine = engines["bundled"]
    ends = {}
    for prompt in ("ink", "comic"):
        engine.prompt = prompt
        ends[prompt] = engine(picture).astype(int)
    seen = []
    for blend in ("linear", "spherical"):
        engine.blend = blend
        engine.prompt = "ink"
        assert np.array_equal(engine(picture), ends["ink"])
        engine.prompt = "ink:0.6 comic:0.4"
        found = engine(picture).astype(int)
        whole = np.abs(ends["ink"] - ends["comic"]).mean()
        assert all(0 < np.abs(found - end).mean() < whole for end in ends.values())
        seen.append(found)
    assert not np.array_equal(*seen)
    engine.blend, engine.prompt = "linear", "pencil"
