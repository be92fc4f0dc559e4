from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage import data

from nodes.stability import Steadiness, flicker, warp_error
from nodes.stability.flow import Flow, Motion
from nodes.stability.measures import flicker_of_noise, noisy_stills

SCENE = np.ascontiguousarray(data.astronaut())


def pan(count=6, step=(3, 2), size=(200, 160)):
    """A camera that moves over a photograph by whole pixels."""
    width, height = size
    return [
        np.ascontiguousarray(
            SCENE[80 + n * step[1] : 80 + n * step[1] + height, 100 + n * step[0] :][:, :width]
        )
        for n in range(count)
    ]


def measured(sources, results):
    steadiness = Steadiness()
    for source, result in zip(sources, results, strict=True):
        steadiness.add(source, result)
    return steadiness.result()


def styled(picture):
    """A style that depends on the picture alone: it moves with it."""
    return cv2.applyColorMap(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLORMAP_BONE)


def test_a_picture_that_only_moves_has_next_to_no_warp_error():
    earlier, later = pan(2)
    motion = Flow().between(earlier, later)
    error = warp_error(earlier, later, motion)
    unmoved = warp_error(earlier, later, Motion(np.zeros_like(motion.field), motion.trusted))
    assert error is not None
    assert error < 1.0
    assert unmoved > 10 * error, "without the motion there is a difference to explain"


def test_the_error_is_the_mean_over_trusted_pixels():
    trusted = np.zeros((20, 20), bool)
    trusted[:10] = True
    motion = Motion(np.zeros((20, 20, 2), np.float32), trusted)
    earlier = np.full((20, 20, 3), 100, np.uint8)
    later = earlier.copy()
    later[:5] = 130
    later[10:] = 0
    assert warp_error(earlier, later, motion) == pytest.approx(15.0)
    blind = Motion(motion.field, np.zeros((20, 20), bool))
    assert warp_error(earlier, later, blind) is None
    with pytest.raises(ValueError, match="the motion is of 20x20 pixels, the pictures of 30x20"):
        warp_error(np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8), motion)


def test_a_style_that_moves_with_the_picture_scores_near_one():
    sources = pan()
    result = measured(sources, [styled(picture) for picture in sources])
    assert result.pairs == 5
    assert result.cuts == 0
    assert result.styled_error < 2.0
    assert result.score == pytest.approx(1.0, rel=0.4)


def test_the_source_itself_scores_one():
    sources = pan(4)
    result = measured(sources, sources)
    assert result.score == 1.0
    assert result.source_error == result.styled_error
    assert result.source_contrast == result.styled_contrast


def test_independent_noise_scores_badly_and_stays_where_it_was_measured():
    sources = pan()
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, picture.shape, dtype=np.uint8) for picture in sources]
    result = measured(sources, noise)
    # Two independent levels from 0 to 255 are a third of the range apart in the mean; sampling
    # between pixels takes a little off.
    assert 60 < result.styled_error < 87
    assert result.score < 0.1


def test_a_texture_that_sticks_to_the_screen_is_seen():
    sources = pan()
    random = np.random.default_rng(1)
    paper = random.integers(0, 80, sources[0].shape, dtype=np.uint8)
    stuck = [picture // 2 + paper for picture in sources]
    moving = [picture // 2 for picture in sources]
    assert measured(sources, stuck).score < 0.5 * measured(sources, moving).score


def test_less_contrast_is_no_way_to_a_better_score():
    sources = [
        np.clip(picture + np.random.default_rng(n).normal(0, 6, picture.shape), 0, 255).astype(
            np.uint8
        )
        for n, picture in enumerate(pan())
    ]
    plain = measured(sources, sources)
    faint = measured(sources, [picture // 4 for picture in sources])
    assert faint.styled_error < 0.4 * plain.styled_error
    assert faint.score == pytest.approx(plain.score, rel=0.1)


def test_a_cut_is_counted_and_not_measured(monkeypatch):
    still = pan(1)[0]
    sources = [still, still, np.random.default_rng(0).integers(0, 256, still.shape, np.uint8)]
    steadiness = Steadiness()
    for picture in sources:
        steadiness.add(picture, picture)
    result = steadiness.result()
    assert (result.pairs, result.cuts) == (1, 1)
    assert result.source_error == 0
    assert result.score is None


def test_too_little_to_measure_is_said_so():
    steadiness = Steadiness()
    with pytest.raises(ValueError, match="of 0 pictures"):
        steadiness.result()
    steadiness.add(*pan(1) * 2)
    with pytest.raises(ValueError, match="of 1 pictures no two neighbours"):
        steadiness.result()
    with pytest.raises(ValueError, match="differ in size"):
        steadiness.add(pan(1)[0], pan(1)[0][:-2])
    with pytest.raises(ValueError, match="differ in shape"):
        steadiness.add(pan(1)[0], pan(1)[0][..., 0].copy())


def test_what_was_added_may_change_afterwards():
    sources = pan(3)
    expected = measured(sources, sources)
    steadiness = Steadiness()
    reused = np.empty_like(sources[0])
    for picture in sources:
        reused[:] = picture
        steadiness.add(reused, reused)
    assert steadiness.result() == expected


@pytest.mark.parametrize("sigma", [1.5, 4.0])
def test_flicker_of_noise_is_what_theory_says(sigma):
    picture = np.full((120, 160, 3), 128, np.uint8)
    stills = list(noisy_stills(picture, sigma=sigma, count=8))
    # Rounding to whole levels adds its own twelfth of a level to the variance.
    rounded = float(np.hypot(sigma, np.sqrt(1 / 12)))
    assert flicker(stills) == pytest.approx(flicker_of_noise(rounded), rel=0.02)


def test_flicker_counts_every_neighbouring_pair():
    levels = [np.full((4, 4), level, np.uint8) for level in (10, 250, 250, 10)]
    assert flicker(levels) == pytest.approx((240 + 0 + 240) / 3)
    assert list(noisy_stills(levels[0], sigma=0, count=2))[1].tolist() == levels[0].tolist()
    with pytest.raises(ValueError, match="two pictures or more, not 1"):
        flicker(levels[:1])
    with pytest.raises(ValueError, match="differ in shape"):
        flicker([levels[0], levels[0][:2]])
