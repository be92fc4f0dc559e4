"""One step in full (SDXS, 3.2): warm-up, score distillation, one-step ControlNet, polish."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from nodes.sdxs.distill import losses
from nodes.sdxs.distill import score as scores
from nodes.sdxs.distill.critic import Critic
from nodes.sdxs.distill.diffusion import TIMESTEPS
from nodes.sdxs.distill.full import backbones
from nodes.sdxs.distill.full.models import Control, noise_of, one_step, velocity
from nodes.sdxs.distill.full.run import Drawn, Run
from nodes.sdxs.distill.full.settings import OneStepControl, Score
from nodes.sdxs.distill.loop import Loop
from nodes.sdxs.distill.lora import insert
from nodes.sdxs.distill.matching import feature_matching


def warmup(run: Run) -> None:
    """Feature matching alone (10)."""
    student = run.student("unet")
    backbone = backbones.choose(run.models, run.settings.warmup.backbone)
    loop = run.loop("warmup", networks={"student": student}, averaged=("student",))
    for step in loop:
        for part in loop.parts():
            drawn = run.draw("warmup", step, part)
            target = run.sample(drawn)
            with loop.precision():
                made = one_step(run.models, student, drawn.noise, drawn.text)
                error = _matched(backbone, made, target, drawn)
            loop.backward(error)
        loop.update("student", loss=error.detach())


def score(run: Run) -> None:
    """Segmented score distillation (11, 12), Algorithm 1."""
    settings = run.settings.score
    student = run.student("warmup")
    online = copy.deepcopy(_plain_teacher(run)).requires_grad_(True)
    loop = run.loop("score", networks={"student": student, "online": online}, averaged=("student",))
    backbone = backbones.choose(run.models, settings.backbone)
    for step in loop:
        for part in loop.parts():
            drawn = run.draw("score", step, part)
            target = run.sample(drawn)
            with loop.precision():
                made = one_step(run.models, student, drawn.noise, drawn.text)
            error = _eleven(run, loop, settings, backbone, made, target, drawn, online, step=step)
            loop.backward(error)
        loop.update("student", loss=error.detach())
        _follow(run, loop, settings, made.detach(), drawn, online)


def one_step_control(run: Run) -> None:
    """The one-step ControlNet: U-Net frozen, the original attached to both score networks."""
    settings = run.settings.one_step_control
    student = run.student("score").eval().requires_grad_(False)
    network = run.small_control("control")
    online = copy.deepcopy(_plain_teacher(run)).requires_grad_(True)
    loop = run.loop(
        "one_step_control",
        networks={"control": network, "online": online},
        averaged=("control",),
    )
    backbone = backbones.choose(run.models, settings.backbone)
    for step in loop:
        for part in loop.parts():
            drawn = run.draw("one_step_control", step, part)
            target = run.sample(drawn)
            pictures = run.control_pictures(target)
            original = Control(run.models.control, pictures)
            noise = renewed(drawn.noise, settings.renewed, drawn.generator)
            with loop.precision():
                made = one_step(
                    run.models, student, noise, drawn.text, control=Control(network, pictures)
                )
            error = _eleven(
                run, loop, settings, backbone, made, target, drawn, online,
                step=step, original=original,
            )  # fmt: skip
            loop.backward(error)
        loop.update("control", loss=error.detach())
        _follow(run, loop, settings, made.detach(), drawn, online, original=original)


def polish(run: Run) -> None:
    """The adversarial finish: a LoRA of very low rank against decoded samples of the teacher."""
    settings = run.settings.polish
    student = run.student("score")
    added = insert(student, rank=settings.rank, where=lambda name: True)
    tiny = run.autoencoder(trained=True).eval().requires_grad_(False)
    critic = Critic(3, width=64).to(run.models.device)
    loop = run.loop(
        "polish",
        networks={"student": student, "critic": critic},
        averaged=("student",),
        trained={"student": added, "critic": list(critic.parameters())},
    )
    backbone = backbones.choose(run.models, "unet")
    for step in loop:
        for part in loop.parts():
            drawn = run.draw("polish", step, part)
            target = run.sample(drawn)
            with loop.precision():
                made = one_step(run.models, student, drawn.noise, drawn.text)
                painted = tiny.decoder(made) / 2 + 0.5
                judged = critic(painted).float()
                matched = _matched(backbone, made, target, drawn)
            error = settings.adversarial * losses.fooling(judged) + settings.matching * matched
            loop.backward(error)
            loop.note(matching=matched.detach())
        loop.update("student", loss=error.detach())
        critic.zero_grad(set_to_none=True)
        with loop.precision():
            real = critic(run.models.decode(target)).float()
            fake = critic(painted.detach()).float()
        doubt = losses.judging(real, fake)
        loop.backward(doubt * settings.accumulate)
        loop.update("critic", critic=doubt.detach())


def renewed(noise: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Noise of which a part is drawn anew: √(1 − share) · noise + √share · fresh.

    As strong as before. What the ControlNet must not read out of the noise, it has to take from
    the control picture (SDXS, 3.3).
    """
    fresh = torch.randn(noise.shape, generator=generator).to(noise)
    mixed: Tensor = (1 - share) ** 0.5 * noise + share**0.5 * fresh
    return mixed


def _plain_teacher(run: Run) -> Any:
    """The teacher without the adapter that its offline copy may have."""
    sources = run.settings.sources
    if sources.lora is None:
        return run.models.teacher
    from diffusers import UNet2DConditionModel

    unet: Any = UNet2DConditionModel
    return unet.from_pretrained(sources.teacher, subfolder="unet").to(run.models.device)


def _matched(backbone: backbones.Backbone, made: Tensor, target: Tensor, drawn: Drawn) -> Tensor:
    with torch.no_grad():
        wanted = [one.float() for one in backbone(target, drawn.text)]
    return feature_matching([one.float() for one in backbone(made, drawn.text)], wanted)


def _eleven(
    run: Run,
    loop: Loop,
    settings: Score | OneStepControl,
    backbone: backbones.Backbone,
    made: Tensor,
    target: Tensor,
    drawn: Drawn,
    online: Any,
    *,
    step: int,
    original: Control | None = None,
) -> Tensor:
    """(11): the score's pull on a segment, and λ_FM times the feature matching."""
    models = run.models
    steps, hold = settings.steps, settings.hold
    alpha = scores.annealed(
        step, steps=steps, first=settings.alpha[0], last=settings.alpha[1], hold=hold
    )
    share = scores.annealed(
        step, steps=steps, first=settings.matching[0], last=settings.matching[1], hold=hold
    )
    with torch.no_grad(), loop.precision():
        clean = made.float()
        t = scores.segment(len(clean), alpha=alpha, generator=drawn.generator).to(clean.device)
        noise = torch.randn(clean.shape, generator=drawn.generator).to(clean)
        noisy = models.diffusion.noised(clean, noise, t)
        empty = models.embed([""] * len(clean)) if settings.guidance > 1 else None
        offline_v = velocity(
            models, models.teacher, noisy, t, drawn.text,
            guidance=settings.guidance, empty=empty, control=original,
        )  # fmt: skip
        online_v = velocity(models, online, noisy, t, drawn.text, control=original)
    pull = scores.gradient(
        models.diffusion,
        clean=made.float(),
        noisy=noisy,
        t=t,
        offline=noise_of(models, noisy, offline_v.float(), t),
        online=noise_of(models, noisy, online_v.float(), t),
        weight=scores.WEIGHTS[settings.weight],
    )
    error = scores.surrogate(made.float(), pull)
    if share:
        with loop.precision():
            matched = _matched(backbone, made, target, drawn)
        error = error + share * matched
        loop.note(matching=matched.detach())
    loop.note(pull=pull.square().mean(), alpha=alpha, lambda_fm=share)
    return error


def _follow(
    run: Run,
    loop: Loop,
    settings: Score | OneStepControl,
    made: Tensor,
    drawn: Drawn,
    online: Any,
    *,
    original: Control | None = None,
) -> None:
    """(1) on what the student makes: the online network follows it."""
    models = run.models
    for _ in range(settings.online_steps):
        t = torch.randint(0, TIMESTEPS, (len(made),), generator=drawn.generator).to(made.device)
        noise = torch.randn(made.shape, generator=drawn.generator).to(made)
        noisy = models.diffusion.noised(made, noise, t)
        with loop.precision():
            predicted = velocity(models, online, noisy, t, drawn.text, control=original)
        followed = losses.denoising(predicted.float(), models.diffusion.velocity(made, noise, t))
        loop.backward(followed * settings.accumulate)
        loop.update("online", online=followed.detach())
