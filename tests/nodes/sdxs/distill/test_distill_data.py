from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nodes.sdxs.distill import targets
from nodes.sdxs.distill.data import Batches, prepare
from nodes.sdxs.distill.matching import similarity
from nodes.sdxs.distill.pictures import dead_leaves, photograph_crop, photographs
from nodes.sdxs.distill.pixels import colour, edges, loss, structure
from nodes.sdxs.distill.small.networks import initialise
from nodes.sdxs.network import NOISE_CHANNELS, Network


def test_dead_leaves_have_the_spectrum_of_photographs() -> None:
    """The power of photographs falls roughly with the square of the frequency (Field, 1987)."""
    rng = np.random.default_rng(0)
    size = 128
    power = np.zeros((size, size))
    for _ in range(12):
        grey = dead_leaves(rng, size=size).mean(axis=2)
        window = np.hanning(size)[:, None] * np.hanning(size)[None, :]
        power += np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    band = (frequency > 0.03) & (frequency < 0.35)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert -3.6 < slope < -1.6


def test_pictures_repeat_for_a_seed_and_differ_between_seeds() -> None:
    photos = photographs()
    for make in (
        lambda rng: dead_leaves(rng, size=64),
        lambda rng: photograph_crop(rng, photos, size=64),
    ):
        first = make(np.random.default_rng(1))
        assert first.shape == (64, 64, 3)
        assert np.array_equal(first, make(np.random.default_rng(1)))
        assert not np.array_equal(first, make(np.random.default_rng(2)))


def test_losses_are_nought_for_equals_and_see_blur() -> None:
    sharp = torch.zeros(1, 3, 32, 32)
    sharp[:, :, :, 16:] = 1
    blurred = sharp.clone()
    blurred[:, :, :, 13:19] = torch.linspace(0, 1, 6)
    darker = sharp * 0.95
    assert loss(sharp, sharp) == pytest.approx(0, abs=1e-6)
    assert structure(sharp, sharp) == pytest.approx(0, abs=1e-6)
    # The same absolute error, but one has lost its edge.
    assert (blurred - sharp).abs().mean() > (darker - sharp).abs().mean()
    assert edges(blurred, sharp) > 5 * edges(darker, sharp)


def test_structure_is_similarity_at_every_second_window() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.rand(2, 3, 40, 48, generator=generator) for _ in range(2))
    wanted = 1 - similarity(one.double(), other.double())[:, :, ::2, ::2].mean()
    assert structure(one.double(), other.double()).item() == pytest.approx(wanted.item(), abs=1e-9)


def test_a_colour_cast_costs_more_than_the_same_error_in_light() -> None:
    paper = torch.full((1, 3, 32, 32), 0.9)
    tinted = paper + torch.tensor([0.01, -0.01, 0.01]).view(1, 3, 1, 1)
    assert colour(paper, paper) == 0
    assert colour(paper - 0.01, paper) == pytest.approx(0, abs=1e-6)
    # (r − g) is 0.02 off, and b − (r + g) / 2 by 0.01.
    assert colour(tinted, paper) == pytest.approx(0.03, rel=1e-3)
    assert loss(tinted, paper) > 1.3 * loss(paper - 0.01, paper)
    # Coloured noise of single pixels is left to the other terms.
    speckled = paper.clone()
    speckled[:, 0, ::2] += 0.02
    speckled[:, 0, 1::2] -= 0.02
    assert colour(speckled, paper) == pytest.approx(0, abs=1e-6)


def test_grain_shows_in_pigment_and_hardly_on_bare_paper() -> None:
    noise = torch.randn(1, NOISE_CHANNELS, 16, 16, generator=torch.Generator().manual_seed(0))
    sheet = targets.grain(noise)
    assert sheet.shape == (1, 1, 64, 64)
    assert torch.equal(sheet, targets.grain(noise))
    amount = torch.tensor(0.1)
    paper = torch.full((1, 3, 64, 64), 0.98)
    grey = torch.full((1, 3, 64, 64), 0.55)
    shown = targets.textured(grey, sheet, amount).std()
    assert shown > 0.02
    assert targets.textured(paper, sheet, amount).std() < shown / 2
    assert torch.equal(targets.textured(grey, sheet, torch.tensor(0.0)), grey)


def test_strength_leads_from_the_source_beyond_the_style() -> None:
    source, style = torch.full((1, 3, 2, 2), 0.6), torch.full((1, 3, 2, 2), 0.4)
    asked = [
        targets.at_strength(source, style, torch.tensor(strength)).mean().item()
        for strength in (0.0, 0.5, 1.0, 2.0)
    ]
    assert asked == pytest.approx([0.6, 0.5, 0.4, 0.2])
    drawn = targets.strengths(4000, torch.Generator().manual_seed(0))
    assert drawn.min() == 0
    assert drawn.max() <= 2
    assert (drawn == 1).float().mean() == pytest.approx(0.8, abs=0.03)


def test_an_untrained_network_is_no_constant_and_leaves_the_latent_alone() -> None:
    torch.manual_seed(0)
    network = Network(3)
    initialise(network)
    pixels = torch.rand(1, 3, 32, 32)
    noise = torch.randn(1, NOISE_CHANNELS, 8, 8)
    with torch.no_grad():
        plain = network.paint(pixels, network.tokens[:1], noise, torch.zeros(1, 1, 1, 1))
        full = network.paint(pixels, network.tokens[:1], noise, torch.ones(1, 1, 1, 1))
    assert torch.equal(plain, full)
    assert plain.std() > 0.05


def test_the_set_is_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    sets = [
        prepare(
            tmp_path / str(workers),
            styles=("pencil", "ink"),
            count=102,
            size=32,
            photo_share=0.5,
            workers=workers,
        )
        for workers in (1, 2)
    ]
    assert sets[0].shape == (102, 3, 32, 32, 3)
    assert np.array_equal(sets[0], sets[1])
    source, target, shares = Batches(sets[0], shares=(1, 2), crop=8, batch=5).draw(
        np.random.default_rng(0)
    )
    assert source.shape == target.shape == (5, 3, 8, 8)
    assert source.dtype == target.dtype == np.float32
    assert 0 <= source.min() < source.max() <= 1
    assert all(row.tolist() in ([0, 1], [1, 0]) for row in shares)


def plain_pictures(levels: tuple[int, ...]) -> NDArray[np.uint8]:
    """A set of one picture, black, whose styles are plain areas of these grey levels."""
    rows = [np.full((40, 40, 3), level, np.uint8) for level in (0, *levels)]
    return np.stack(rows)[None]


def test_blends_are_asked_for_as_often_as_said_and_lie_between_their_styles() -> None:
    levels = (30, 90, 250)
    drawn = Batches(plain_pictures(levels), shares=(1, 2, 1), crop=8, batch=2000, blends=0.35)
    source, target, shares = drawn.draw(np.random.default_rng(0))
    assert shares.dtype == np.float32
    assert shares.sum(1) == pytest.approx(1)
    assert set((shares > 0).sum(1)) == {1, 2}
    blends = shares[(shares > 0).sum(1) == 2]
    assert len(blends) / len(shares) == pytest.approx(0.35, abs=0.04)
    # Every pair, with weights from one end to the other.
    assert len({tuple(row > 0) for row in blends}) == 3
    assert np.histogram(blends[blends > 0], bins=4, range=(0, 1))[0].min() > 250
    assert shares.mean(0)[1] > 1.3 * shares.mean(0)[[0, 2]].max()
    assert not source.any()
    wanted = (shares @ np.asarray(levels, np.float32) / 255)[:, None, None, None]
    assert np.allclose(target, wanted, atol=1e-5)


def test_tokens_of_a_style_are_its_own_and_those_of_a_blend_their_mean() -> None:
    table = torch.randn(3, 4, 64, requires_grad=True)
    asked = torch.tensor([[0.0, 1.0, 0.0], [0.25, 0.0, 0.75]])
    made = targets.blended(table, asked)
    assert torch.equal(made[0], table[1])
    assert torch.allclose(made[1], 0.25 * table[0] + 0.75 * table[2])
    made.sum().backward()
    assert table.grad is not None
    assert table.grad[:, 0, 0].tolist() == pytest.approx([0.25, 1.0, 0.75])
