"""What keeps a styled video still: feedback, repeats, slowly turning noise."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data

from nodes.sdxs import OneStep
from nodes.sdxs.engine import SpoiledPictureError
from nodes.sdxs.noise import slerp
from nodes.sdxs.steady import Outcome, Steady


@pytest.fixture(scope="module")
def engine() -> OneStep:
    return OneStep.load("bundled")


@pytest.fixture
def picture() -> Any:
    return cv2.resize(data.astronaut(), (128, 128), interpolation=cv2.INTER_AREA)


def noisy(picture: Any, number: int, sigma: float = 4.0) -> Any:
    grain = np.random.default_rng(number).normal(0, sigma, picture.shape)
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def flicker(steady: Steady, picture: Any, count: int = 8) -> float:
    """Mean change from one result to the next for a still picture with sensor noise."""
    last, changes = None, []
    for number in range(count):
        out = np.empty_like(picture)
        steady(noisy(picture, number), out)
        if last is not None:
            changes.append(np.abs(out.astype(int) - last).mean())
        last = out.astype(int)
    return float(np.mean(changes[1:]))


def test_feedback_calms_a_still_picture(engine: OneStep, picture: Any) -> None:
    engine.prompt = "pencil"
    plain, calmed = Steady(engine), Steady(engine)
    calmed.feedback = 0.35
    assert flicker(calmed, picture) < 0.85 * flicker(plain, picture)


def test_feedback_leaves_no_trail_behind_what_moves(engine: OneStep) -> None:
    engine.prompt = "comic"
    scene = cv2.resize(data.coffee(), (128, 128), interpolation=cv2.INTER_AREA)
    lit, dark = scene.copy(), scene.copy()
    lit[40:80, 40:80], dark[40:80, 40:80] = 255, 0
    steady, out = Steady(engine), np.empty_like(scene)
    steady.feedback = 0.35
    steady(lit, out)
    steady(dark, out)
    inside = (slice(48, 72), slice(48, 72))
    assert np.abs(out[inside].astype(int) - engine(dark)[inside]).max() <= 1


def test_without_options_it_is_the_engine(engine: OneStep, picture: Any) -> None:
    out = np.empty_like(picture)
    assert Steady(engine)(picture, out) is Outcome.PAINTED
    assert np.array_equal(out, engine(picture))


def test_a_source_that_hardly_changes_shows_the_last_result(engine: OneStep, picture: Any) -> None:
    steady = Steady(engine)
    steady.similar = 2.0
    first, second = np.empty_like(picture), np.empty_like(picture)
    assert steady(picture, first) is Outcome.PAINTED
    assert steady(noisy(picture, 1, sigma=1.0), second) is Outcome.REPEATED
    assert np.array_equal(first, second)


def test_slow_changes_add_up(engine: OneStep) -> None:
    steady, painted = Steady(engine), []
    steady.similar = 3.0
    for level in range(100, 120):
        image = np.full((64, 64, 3), level, np.uint8)
        painted.append(steady(image, np.empty_like(image)) is Outcome.PAINTED)
    assert painted[0]
    assert 4 <= sum(painted) <= 6  # at every fourth grey level


def test_another_prompt_is_painted_although_the_source_is_the_same(
    engine: OneStep, picture: Any
) -> None:
    steady, out = Steady(engine), np.empty_like(picture)
    steady.similar = 64.0
    engine.prompt = "ink"
    assert steady(picture, out) is Outcome.PAINTED
    engine.prompt = "comic"
    assert steady(picture, out) is Outcome.PAINTED
    assert np.array_equal(out, engine(picture))


def test_another_size_begins_anew(engine: OneStep, picture: Any) -> None:
    steady = Steady(engine)
    steady.similar, steady.feedback = 64.0, 0.3
    small = np.ascontiguousarray(picture[:64, :64])
    assert steady(picture, np.empty_like(picture)) is Outcome.PAINTED
    out = np.empty_like(small)
    assert steady(small, out) is Outcome.PAINTED
    assert np.array_equal(out, engine(small))


def test_noise_turns_to_the_next_seed_and_no_further_jump(engine: OneStep, picture: Any) -> None:
    engine.prompt, engine.seed = "pencil", 5
    steady = Steady(engine)
    steady.drift = 4
    results = []
    for _ in range(5):
        out = np.empty_like(picture)
        steady(picture, out)
        results.append(out.astype(int))
    engine.turn = 0.0
    assert np.array_equal(results[0], engine(picture))
    engine.seed = 6
    assert np.array_equal(results[4], engine(picture))
    steps = [np.abs(b - a).mean() for a, b in pairwise(results)]
    whole = np.abs(results[4] - results[0]).mean()
    assert max(steps) < 0.8 * whole
    engine.seed = 0


def test_a_pace_that_changes_goes_on_from_where_the_noise_is(engine: OneStep, picture: Any) -> None:
    engine.prompt, engine.seed = "pencil", 5
    steady, out, turns = Steady(engine), np.empty_like(picture), []
    for drift in (0, 0, 4, 4, 4, 8, 8, 0, 0, 2):
        steady.drift = drift
        steady(picture, out)
        turns.append(engine.turn)
    assert turns == [0, 0, 0, 0.25, 0.5, 0.75, 0.875, 1, 1, 1]
    engine.seeds = "5:0.7 9:0.3"  # as a slider does
    steady(picture, out)
    engine.seeds = "9"
    steady(picture, out)
    assert engine.turn > 1
    engine.seeds = "6"
    steady(picture, out)
    assert engine.turn == 0
    engine.seed, engine.seeds = 0, None


def test_turned_noise_stays_as_strong() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 4, 64, 64))
    for share in (0.25, 0.5, 0.75):
        assert slerp(a, b, share).std() == pytest.approx(1.0, abs=0.02)
    assert slerp(a, a, 0.5) == pytest.approx(a)


def test_checkpoints_mix_latents() -> None:
    engine = OneStep.load("random:tiny", control="random")
    side = engine.native_size[0]
    still = cv2.resize(data.astronaut(), (side, side), interpolation=cv2.INTER_AREA)
    other = np.ascontiguousarray(still[::-1])
    steady, out = Steady(engine), np.empty_like(still)
    steady.feedback = 0.35
    steady(still, out)
    assert np.array_equal(out, engine(still))  # nothing to mix yet
    steady(other, out)
    alone = engine(other)
    toward = engine(still)
    mixed, away = np.abs(out.astype(int) - toward).mean(), np.abs(alone.astype(int) - toward).mean()
    assert 0 < mixed < away
    with pytest.raises(ValueError, match="mix the picture itself"):
        OneStep.load("bundled").paint_after(still, out, past=None, share=0.1)


def test_numbers_that_are_not_finite_show_the_last_good_picture() -> None:
    engine: Any = OneStep.load("random:tiny", control="random")
    side = engine.native_size[0]
    picture = cv2.resize(data.coffee(), (side, side), interpolation=cv2.INTER_AREA)
    steady, good, out = Steady(engine), np.empty_like(picture), np.empty_like(picture)
    assert steady(picture, good) is Outcome.PAINTED
    healthy = engine.embedding
    for broken in (float("nan"), float("inf")):
        engine.embedding = replace(healthy, tokens=healthy.tokens * broken)
        assert steady(picture, out) is Outcome.SPOILED
        assert np.array_equal(out, good)
        assert isinstance(steady.trouble, SpoiledPictureError)
        with pytest.raises(SpoiledPictureError):
            Steady(engine)(picture, out)
    engine.embedding = healthy
    assert steady(picture, out) is Outcome.PAINTED
    assert np.array_equal(out, good)


OUT_OF_MEMORY = """
import resource, sys
import numpy as np
from nodes.sdxs import OneStep
from nodes.sdxs.steady import Steady

engine = OneStep.load("random:tiny", control="random", threads=1)
engine.warm_up(128, 128)
image = np.random.default_rng(0).integers(0, 255, (1024, 1024, 3), np.uint8)
out = np.empty_like(image)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 120_000_000, -1))
steady = Steady(engine)
try:
    steady(image, out)
except MemoryError as error:
    print("refused:", error)
steady.smaller = True
print(steady(image, out).name, steady.halvings, out.max() > out.min())
"""


def test_memory_that_runs_out_is_said_and_may_halve_the_size() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OUT_OF_MEMORY], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    refused, painted = done.stdout.splitlines()
    assert refused == "refused: no memory for pictures of 1024x1024"
    name, halvings, drawn = painted.split()
    assert name == "PAINTED"
    assert int(halvings) >= 1
    assert drawn == "True"
