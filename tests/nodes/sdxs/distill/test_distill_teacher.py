"""What the teacher begins as, and what comes of it: nothing that the draft knows may be lost."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from nodes.sdxs.distill import losses
from nodes.sdxs.distill.diffusion import Diffusion
from nodes.sdxs.distill.loop import FILE, Loop, finished, read, result
from nodes.sdxs.distill.settings import Stage
from nodes.sdxs.distill.small.conditioned import (
    FORM,
    LATENT,
    Conditioned,
    one_step,
    student_from,
    teacher_from,
)
from nodes.sdxs.distill.small.latents import Autoencoder
from nodes.sdxs.distill.small.making import painter
from nodes.sdxs.distill.targets import blended
from nodes.sdxs.network import NOISE_CHANNELS, Network, squash


@pytest.fixture
def draft() -> Network:
    """A one-step network that changes the picture, with nothing in it that is nought."""
    torch.manual_seed(0)
    network = Network(2, finish=1).eval().requires_grad_(False)
    torch.nn.init.normal_(network.unet.conv_out.weight, std=0.2)
    return network


@pytest.fixture
def teacher(draft: Network) -> Conditioned:
    spread = torch.stack([torch.randn(LATENT) * 0.1, torch.rand(LATENT) + 0.3])
    return teacher_from(draft, channels=(32, 64, 96, 96), layers=2, spread=spread).eval()


def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures whose quarter is no multiple of the teacher's eight, a style and a blend, paper."""
    generator = torch.Generator().manual_seed(1)
    source = torch.rand(2, 3, 64, 80, generator=generator)
    shares = torch.tensor([[0.0, 1.0], [0.7, 0.3]])
    return source, shares, torch.randn(2, NOISE_CHANNELS, 16, 20, generator=generator)


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_an_untrained_teacher_paints_the_drafts_picture(
    draft: Network, teacher: Conditioned, steps: int
) -> None:
    source, shares, paper = drawn()
    wanted = draft.paint(source, blended(draft.tokens, shares), paper, torch.ones(2, 1, 1, 1))
    made = painter(Autoencoder(draft), teacher, steps=steps)(source, shares, paper)
    assert (made - wanted).abs().max() < 1e-4
    # It is the U-Net that changes the picture here, not the autoencoder alone.
    plain = draft.paint(source, blended(draft.tokens, shares), paper, torch.zeros(2, 1, 1, 1))
    assert (wanted - plain).abs().max() > 0.01


def test_everything_new_in_the_teacher_can_learn(draft: Network, teacher: Conditioned) -> None:
    """What begins at nought must not stay there: the time, the noised latent, the new blocks."""
    source, shares, paper = drawn()
    kept = Autoencoder(draft)
    optimiser = torch.optim.Adam(teacher.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(2)
    before = copy.deepcopy(teacher.state_dict())
    for _ in range(4):
        latent = kept.drafted(source, shares=shares, paper=paper).source
        clean = torch.randn(latent.shape, generator=generator)
        made = teacher.clean(
            torch.randn(latent.shape, generator=generator),
            torch.tensor([40, 900]),
            source=latent,
            paper=paper,
            tokens=blended(teacher.tokens, shares),
        )
        losses.denoising(made, clean).backward()
        optimiser.step()
        optimiser.zero_grad()
    after = teacher.state_dict()
    still = [
        name
        for name, one in before.items()
        if name not in ("mean", "deviation") and torch.equal(one, after[name])
    ]
    assert still == []


def test_block_removal_takes_away_no_more_than_the_detour_adds(
    draft: Network, teacher: Conditioned
) -> None:
    source, shares, paper = drawn()
    latent = draft.encode(source)[1]
    given = {"source": latent, "paper": paper, "tokens": blended(teacher.tokens, shares)}
    noisy, t = torch.randn(latent.shape), torch.tensor([10, 700])
    torch.nn.init.normal_(teacher.unet.time_embedding.linear_1.weight, std=0.2)
    torch.nn.init.normal_(teacher.unet.conv_in.weight, std=0.1)
    small = student_from(teacher).eval()
    assert small.unet.mid_block is None
    with torch.no_grad():
        wanted = teacher.clean(noisy, t, **given)
        assert torch.allclose(small.clean(noisy, t, **given), wanted, atol=1e-4)
        torch.nn.init.normal_(teacher.unet.up_blocks[0].upsamplers[0].conv.weight, std=0.1)
        assert not torch.allclose(teacher.clean(noisy, t, **given), wanted, atol=1e-2)


def test_a_copy_of_a_teacher_has_a_detour_of_its_own(teacher: Conditioned) -> None:
    """The online network is a copy: what it adds may not leak into the offline one."""
    latent, paper = torch.randn(1, LATENT, 16, 16), torch.randn(1, NOISE_CHANNELS, 16, 16)
    given = {"source": latent, "paper": paper, "tokens": teacher.tokens[:1]}
    t = torch.tensor([500])
    with torch.no_grad():
        wanted = teacher.clean(latent, t, **given)
        online = copy.deepcopy(teacher)
        assert torch.equal(online.clean(latent, t, **given), wanted)
        torch.nn.init.normal_(online.unet.up_blocks[0].upsamplers[0].conv.weight, std=0.1)
        assert not torch.allclose(online.clean(latent, t, **given), wanted, atol=1e-2)
        assert torch.equal(teacher.clean(latent, t, **given), wanted)


def test_the_student_is_the_draft_again(draft: Network, teacher: Conditioned) -> None:
    source, shares, paper = drawn()
    again = one_step(draft, student_from(teacher)).eval()
    one = torch.ones(2, 1, 1, 1)
    with torch.no_grad():
        made = again.paint(source, blended(again.tokens, shares), paper, one)
    wanted = draft.paint(source, blended(draft.tokens, shares), paper, one)
    assert torch.allclose(made, wanted, atol=1e-4)


def test_the_drafts_picture_has_the_latent_it_was_painted_from(draft: Network) -> None:
    source, shares, paper = drawn()
    kept = Autoencoder(draft)
    drafted = kept.drafted(source, shares=shares, paper=paper)
    wanted = draft.paint(source, blended(draft.tokens, shares), paper, torch.ones(2, 1, 1, 1))
    assert torch.equal(drafted.painted, wanted)
    assert torch.equal(drafted.source, draft.encode(source)[1])
    latent = kept.write(drafted.painted, drafted)
    assert torch.allclose(latent, squash(drafted.latent), atol=1e-5)
    assert torch.allclose(kept.read(latent, drafted), wanted, atol=1e-5)
    # Another picture has another latent.
    assert (kept.write(drafted.painted.flip(3), drafted) - latent).abs().mean() > 1e-3


def test_of_the_autoencoder_the_new_encoder_alone_learns(draft: Network) -> None:
    source, shares, paper = drawn()
    kept = Autoencoder(draft)
    drafted = kept.drafted(source, shares=shares, paper=paper)
    kept.read(kept.write(source, drafted), drafted).sum().backward()
    learns = {name for name, one in kept.named_parameters() if one.grad is not None}
    assert learns == {name for name, _ in kept.named_parameters() if name.startswith("encoder.")}


def test_a_predicted_clean_latent_is_a_velocity_and_a_noise() -> None:
    diffusion = Diffusion.scaled_linear()
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(3, 2, 4, 4, generator=generator) for _ in range(2))
    t = torch.tensor([20, 500, 999])
    noisy = diffusion.noised(clean, noise, t)
    velocity = diffusion.velocity(clean, noise, t)
    assert torch.allclose(diffusion.noise_of(noisy, clean, t), noise, atol=1e-4)
    assert torch.allclose(diffusion.velocity_of(noisy, clean, t), velocity, atol=1e-4)


def test_a_step_counts_between_once_and_five_times() -> None:
    diffusion = Diffusion.scaled_linear()
    t = torch.tensor([0, 150, 300, 999])
    weight = diffusion.importance(t, torch.zeros(4, 2, 3, 3))
    assert weight.shape == (4, 1, 1, 1)
    ratio = (diffusion.alpha[t] / diffusion.sigma[t]) ** 2
    assert ratio[0] > 5 > ratio[1] > ratio[2] > 1 > ratio[3]
    assert weight.flatten().tolist() == pytest.approx([5.0, float(ratio[1]), float(ratio[2]), 1.0])
    # Between the bounds it is the error in the noise, (1).
    guess, clean, noise = (torch.randn(4, 2, 3, 3) for _ in range(3))
    noisy = diffusion.noised(clean, noise, t)
    same = losses.denoising(guess[1:3], clean[1:3], weight=weight[1:3])
    other = losses.denoising(diffusion.noise_of(noisy, guess, t)[1:3], noise[1:3])
    assert same.item() == pytest.approx(other.item(), rel=1e-3)


def kept_as(folder: Path, form: str | None) -> None:
    settings = Stage(steps=1, precision="float32")
    loop = Loop(folder, settings, networks={"teacher": torch.nn.Linear(1, 1)}, form=form)
    for _ in loop:
        loop.backward(sum(one.sum() for one in loop.networks["teacher"].parameters()))
        loop.update("teacher")


@pytest.mark.parametrize("other", [None, "the velocity"])
def test_a_checkpoint_of_another_form_is_refused(tmp_path: Path, other: str | None) -> None:
    folder = tmp_path / "teacher"
    kept_as(folder, other)
    said = other or "something unsaid"
    wanted = (
        f"checkpoint.safetensors holds networks that predict {said}, and this stage's predict "
        f"{FORM}: move {folder} away, and it begins anew"
    )
    for attempt in (
        lambda: kept_as(folder, FORM),
        lambda: read(folder / FILE, form=FORM),
        lambda: result(folder, "teacher", form=FORM),
        lambda: finished(folder, 1, form=FORM),
    ):
        with pytest.raises(ValueError, match="networks that predict") as caught:
            attempt()
        assert wanted in str(caught.value)
    # The other way round there is nothing to refuse: not every stage has a form.
    assert finished(folder, 1)
    kept_as(tmp_path / "same", FORM)
    assert finished(tmp_path / "same", 1, form=FORM)
    assert set(result(tmp_path / "same", "teacher", form=FORM)) == {"weight", "bias"}
