from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from nodes.sdxs.distill import losses, score
from nodes.sdxs.distill.diffusion import TIMESTEPS, Diffusion, trailing
from nodes.sdxs.distill.matching import feature_matching, similarity


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_reconstruction_sees_areas_and_no_texture() -> None:
    target = torch.zeros(1, 3, 16, 16)
    checks = torch.zeros(1, 3, 16, 16)
    checks[:, :, ::2, ::2] = checks[:, :, 1::2, 1::2] = 0.2
    # Of the checks only their mean is left: half of 0.2.
    assert losses.reconstruction(checks, target).item() == pytest.approx(0.1)
    assert losses.reconstruction(checks - 0.1, target).item() == pytest.approx(0, abs=1e-7)
    half = torch.zeros(1, 3, 16, 16)
    half[..., :8] = 1
    assert losses.reconstruction(half, target).item() == pytest.approx(0.5)


def test_the_hinge_stops_where_the_judge_is_sure() -> None:
    real, made = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.25])
    assert losses.judging(real, made).item() == pytest.approx((0 + 0.5) / 2 + (0 + 1.25) / 2)
    assert losses.fooling(made).item() == pytest.approx(-(-3 + 0.25) / 2)


def test_distillation_adds_output_and_features_and_spares_the_teacher() -> None:
    ours = torch.ones(2, 3, requires_grad=True)
    theirs = torch.zeros(2, 3, requires_grad=True)
    features = ([torch.full((2, 2), 3.0), torch.ones(1)], [torch.ones(2, 2), torch.zeros(1)])
    total = losses.knowledge_distillation(ours, theirs, features=features, feature_weight=0.5)
    assert total.item() == pytest.approx(1 + 0.5 * (4 + 1))
    total.backward()
    assert ours.grad is not None
    assert torch.allclose(ours.grad, torch.full((2, 3), 2 / 6))
    assert theirs.grad is None


def test_features_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="1 features of the student, 2 of the teacher"):
        losses.feature_distillation([torch.ones(1)], [torch.ones(1)] * 2)
    with pytest.raises(ValueError, match=r"feature 0 is \(2,\) in the student and \(1,\)"):
        losses.feature_distillation([torch.ones(2)], [torch.ones(1)])


def test_similarity_is_that_of_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(0)
    one = rng.random((40, 52))
    other = np.clip(one + rng.normal(0, 0.2, one.shape), 0, 1)
    _, wanted = structural_similarity(
        one, other, win_size=7, data_range=1.0, use_sample_covariance=False, full=True
    )
    ours = similarity(torch.from_numpy(one)[None, None], torch.from_numpy(other)[None, None])
    assert ours.shape == (1, 1, 34, 46)
    assert np.allclose(ours[0, 0].numpy(), wanted[3:-3, 3:-3], atol=1e-9)


def test_feature_matching_falls_towards_the_teacher_and_weighs_its_layers() -> None:
    generator = seeded()
    teacher = [torch.randn(2, 4, 16, 16, generator=generator) * 5, torch.randn(2, 8, 4, 4)]
    noise = [torch.randn(one.shape, generator=generator) for one in teacher]
    near, far = (
        [one + share * other for one, other in zip(teacher, noise, strict=True)]
        for share in (0.2, 1.0)
    )
    assert feature_matching(teacher, teacher).item() == pytest.approx(0, abs=1e-5)
    assert 0.001 < feature_matching(near, teacher) < feature_matching(far, teacher)
    alone = feature_matching(far[:1], teacher[:1], weights=[1.0])
    mixed = feature_matching([far[0], teacher[1]], teacher, weights=[0.25, 0.75])
    assert mixed.item() == pytest.approx(0.25 * alone.item(), abs=1e-5)
    # The scale of a feature does not matter.
    scaled = feature_matching([one * 100 for one in far], [one * 100 for one in teacher])
    assert scaled.item() == pytest.approx(feature_matching(far, teacher).item(), rel=1e-3)
    with pytest.raises(ValueError, match="0 features of the student"):
        feature_matching([], [])


def test_the_process_and_its_inverse() -> None:
    diffusion = Diffusion.scaled_linear()
    assert diffusion.alpha[999].item() ** 2 == pytest.approx(0.0046601, rel=1e-4)
    assert torch.allclose(diffusion.alpha**2 + diffusion.sigma**2, torch.ones(TIMESTEPS))
    clean, noise = (torch.randn(3, 2, 4, generator=seeded(n)) for n in (1, 2))
    t = torch.tensor([0, 500, 999])
    noisy = diffusion.noised(clean, noise, t)
    velocity = diffusion.velocity(clean, noise, t)
    assert torch.allclose(diffusion.clean(noisy, velocity, t), clean, atol=1e-5)
    assert torch.allclose(diffusion.noise(noisy, velocity, t), noise, atol=1e-5)


def test_timesteps_trail_from_the_noisiest() -> None:
    assert trailing(1) == [999]
    assert trailing(4) == [999, 749, 499, 249]
    with pytest.raises(ValueError, match="steps must be 1 to 1000, not 0"):
        trailing(0)


def gaussian_noise(
    diffusion: Diffusion, noisy: torch.Tensor, t: torch.Tensor, mean: torch.Tensor, spread: float
) -> torch.Tensor:
    """The exact ε(x_t) = −σ ∇ log p_t of data distributed N(mean, spread²)."""
    alpha, sigma = diffusion.at(t, noisy)
    return sigma * (noisy - alpha * mean) / (alpha**2 * spread**2 + sigma**2)


def test_sampling_the_exact_process_gives_the_exact_distribution() -> None:
    diffusion = Diffusion.scaled_linear()
    mean = torch.tensor([2.0, -1.0])

    def predict(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        noise = gaussian_noise(diffusion, noisy, t, mean, 0.5)
        alpha, sigma = diffusion.at(t, noisy)
        return (noise - sigma * noisy) / alpha

    made = diffusion.sample(predict, torch.randn(4000, 2, generator=seeded()), steps=200)
    assert torch.allclose(made.mean(0), mean, atol=0.1)
    assert torch.allclose(made.std(0), torch.tensor(0.5), atol=0.05)


def test_the_score_gradient_is_that_of_the_divergence() -> None:
    """KL of two Gaussians at one t has a closed form: autograd through it must agree with (12)."""
    diffusion = Diffusion.scaled_linear()
    place, wanted, spread = torch.tensor([0.7], requires_grad=True), torch.tensor([-0.4]), 0.6
    t = torch.full((20000,), 400)
    alpha, sigma = diffusion.alpha[400], diffusion.sigma[400]
    # Equal spreads: KL(N(α a, s²) ‖ N(α b, s²)) = α² (a − b)² / (2 s²).
    variance = alpha**2 * spread**2 + sigma**2
    divergence = (alpha**2 * (place - wanted) ** 2 / (2 * variance)).sum()
    (exact,) = torch.autograd.grad(divergence, place)

    clean = place + spread * torch.randn(20000, 1, generator=seeded())
    noise = torch.randn(clean.shape, generator=seeded(1))
    noisy = diffusion.noised(clean.detach(), noise, t)
    pull = score.gradient(
        diffusion,
        clean=clean,
        noisy=noisy,
        t=t,
        offline=gaussian_noise(diffusion, noisy, t, wanted, spread),
        online=gaussian_noise(diffusion, noisy, t, place.detach(), spread),
        weight=lambda diffusion, t, error: torch.ones(len(t), 1),
    )
    assert not pull.requires_grad
    (ours,) = torch.autograd.grad(score.surrogate(clean, pull), place)
    assert ours.item() == pytest.approx(exact.item(), rel=1e-3)


@pytest.mark.parametrize("weight", ["uniform", "levelled"])
def test_score_distillation_finds_the_target_gaussian(weight: str) -> None:
    """A generator a + b z must become N(3, 0.5²), with an online network that learns to follow."""
    diffusion = Diffusion.scaled_linear()
    mean, spread = torch.tensor([3.0]), 0.5
    place = nn.Parameter(torch.tensor([-1.0]))
    width = nn.Parameter(torch.tensor([1.5]))
    # What the online network has learnt of the generator, by moving averages of its pictures.
    known_mean, known_width = torch.tensor([-1.0]), 1.5
    optimiser = torch.optim.Adam([place, width], lr=0.03)
    generator = seeded()
    steps = 500
    for step in range(steps):
        alpha = score.annealed(step, steps=steps, first=1.0, last=0.4)
        clean = place + width * torch.randn(256, 1, generator=generator)
        t = score.segment(256, alpha=alpha, generator=generator)
        noisy = diffusion.noised(clean.detach(), torch.randn(clean.shape, generator=generator), t)
        pull = score.gradient(
            diffusion,
            clean=clean,
            noisy=noisy,
            t=t,
            offline=gaussian_noise(diffusion, noisy, t, mean, spread),
            online=gaussian_noise(diffusion, noisy, t, known_mean, known_width),
            weight=score.WEIGHTS[weight],
        )
        optimiser.zero_grad()
        score.surrogate(clean, pull).backward()
        optimiser.step()
        known_mean = known_mean.lerp(clean.detach().mean(0), 0.3)
        known_width += 0.3 * (clean.detach().std().item() - known_width)
    assert place.item() == pytest.approx(3.0, abs=0.15)
    assert abs(width.item()) == pytest.approx(0.5, abs=0.12)


def test_the_segment_shrinks_with_alpha() -> None:
    wide = score.segment(4000, alpha=1.0, generator=seeded())
    narrow = score.segment(4000, alpha=0.3, generator=seeded())
    assert wide.min() >= score.FIRST
    assert 990 < wide.max() < 1000
    assert 290 < narrow.max() < 300
    assert score.segment(10, alpha=0.001).unique().tolist() == [score.FIRST]
    with pytest.raises(ValueError, match="alpha must be above 0 and at most 1, not 0"):
        score.segment(1, alpha=0)


def test_weights_cancel_what_the_score_does_to_the_difference() -> None:
    diffusion = Diffusion.scaled_linear()
    t = torch.tensor([100, 700])
    clean, offline, online = (torch.randn(2, 3, generator=seeded(n)) for n in range(3))
    noisy = diffusion.noised(clean, offline, t)
    pulls = {
        name: score.gradient(
            diffusion, clean=clean, noisy=noisy, t=t, offline=offline, online=online, weight=one
        )
        for name, one in score.WEIGHTS.items()
    }
    # σ²/α · (ε_offline − ε_online)/σ · α = σ (ε_offline − ε_online).
    sigma = diffusion.sigma[t].view(-1, 1)
    assert torch.allclose(pulls["uniform"], sigma * (offline - online), atol=1e-5)
    # The offline network is sure here, so that the clamp holds: 1e-4.
    assert torch.allclose(pulls["levelled"], pulls["uniform"] / 1e-4, rtol=2e-2)


def test_annealing_holds_then_falls_to_its_end() -> None:
    values = [score.annealed(step, steps=11, first=1.0, last=0.2, hold=0.2) for step in range(11)]
    assert values[:3] == pytest.approx([1.0] * 3)
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(0.2)
    middle = score.annealed(5, steps=11, first=0.0, last=1.0)
    assert middle == pytest.approx(0.5 * (1 - math.cos(math.pi / 2)))
