"""One step in full (SDXS, 3.2): warm-up, score distillation, one-step ControlNet, polish."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nodes.sdxs.distill import losses
from nodes.sdxs.distill import score as scores
from nodes.sdxs.distill.critic import Critic
from nodes.sdxs.distill.diffusion import TIMESTEPS
from nodes.sdxs.distill.full import backbones
from nodes.sdxs.distill.full.adversarial import judge, unmoved
from nodes.sdxs.distill.full.loading import plain_teacher
from nodes.sdxs.distill.full.models import Control, asked, noise_of, one_step, predicted
from nodes.sdxs.distill.full.run import Drawn, Run
from nodes.sdxs.distill.full.settings import Distillation
from nodes.sdxs.distill.loop import Loop
from nodes.sdxs.distill.lora import insert
from nodes.sdxs.distill.matching import feature_matching


@dataclass(frozen=True)
class Shown:
    """What the student made in one part of a step, for the online network.

    Attributes:
        made: Its latents, without gradients.
        drawn: The batch.
        original: The original ControlNet with the part's pictures, where there is one.
    """

    made: Tensor
    drawn: Drawn
    original: Control | None = None


def warmup(run: Run) -> None:
    """Feature matching alone (10)."""
    student = run.student("unet")
    backbone = backbones.choose(run.models, run.settings.warmup.backbone)
    loop = run.loop(
        "warmup",
        networks={"student": student},
        averaged=("student",),
        paint=partial(_compared, run, student),
    )
    for step in loop:
        for part in loop.parts():
            drawn = run.draw("warmup", step, part)
            with loop.precision():
                target = run.sample(drawn)
                made = one_step(run.models, student, drawn.noise, drawn.text)
                error = _matched(backbone, made, target, drawn)
            loop.backward(error)
            loop.note(loss=error.detach())
        loop.update("student")


def score(run: Run) -> None:
    """Segmented score distillation (11, 12), Algorithm 1."""
    settings = run.settings.score
    student = run.student(settings.start)
    online = plain_teacher(run.settings, run.models)
    loop = run.loop(
        "score",
        networks={"student": student, "online": online},
        averaged=("student",),
        paint=partial(_compared, run, student),
    )
    backbone = backbones.choose(run.models, settings.backbone)
    for step in loop:
        shown = []
        for part in loop.parts():
            drawn = run.draw("score", step, part)
            with loop.precision():
                target = run.sample(drawn) if any(settings.matching) else drawn.noise
                made = one_step(run.models, student, drawn.noise, drawn.text)
            now = Shown(made.detach(), drawn)
            loop.backward(_eleven(run, loop, settings, backbone, made, target, now, online))
            shown.append(now)
        loop.update("student")
        _follow(run, loop, settings, shown, online)


def one_step_control(run: Run) -> None:
    """The one-step ControlNet: U-Net frozen, the original attached to both score networks."""
    settings = run.settings.one_step_control
    student = run.student("score").eval().requires_grad_(False)
    network = run.small_control("control")
    online = plain_teacher(run.settings, run.models)
    models = run.models

    def paint(drawn: Drawn) -> list[Tensor]:
        target = run.sample(drawn)
        pictures = run.control_pictures(target)
        # All of the noise is drawn anew here: what is alike comes from the control picture.
        noise = renewed(drawn.noise, 1.0, torch.Generator().manual_seed(0))
        made = one_step(models, student, noise, drawn.text, control=Control(network, pictures))
        return [models.decode(target), pictures, models.decode(made)]

    loop = run.loop(
        "one_step_control",
        networks={"control": network, "online": online},
        averaged=("control",),
        paint=paint,
    )
    backbone = backbones.choose(models, settings.backbone)
    for step in loop:
        shown = []
        for part in loop.parts():
            drawn = run.draw("one_step_control", step, part)
            with loop.precision():
                target = run.sample(drawn)
                pictures = run.control_pictures(target)
                noise = renewed(drawn.noise, settings.renewed, drawn.generator)
                mine = Control(network, pictures)
                made = one_step(models, student, noise, drawn.text, control=mine)
            now = Shown(made.detach(), drawn, Control(models.control, pictures))
            loop.backward(_eleven(run, loop, settings, backbone, made, target, now, online))
            shown.append(now)
        loop.update("control")
        _follow(run, loop, settings, shown, online)


def polish(run: Run) -> None:
    """The adversarial finish: a LoRA of very low rank against decoded samples of the teacher."""
    settings = run.settings.polish
    student = run.student("score")
    added = insert(student, rank=settings.rank, where=lambda name: True)
    tiny = run.autoencoder(trained=True).eval().requires_grad_(False)
    critic = Critic(3, width=64).to(run.models.device)

    def paint(drawn: Drawn) -> list[Tensor]:
        made = one_step(run.models, student, drawn.noise, drawn.text)
        return [run.models.decode(run.sample(drawn)), tiny.decoder(made) / 2 + 0.5]

    loop = run.loop(
        "polish",
        networks={"student": student, "critic": critic},
        averaged=("student",),
        trained={"student": added, "critic": list(critic.parameters())},
        paint=paint,
    )
    backbone = backbones.choose(run.models, "unet")
    for step in loop:
        for part in loop.parts():
            drawn = run.draw("polish", step, part)
            with loop.precision(), unmoved(critic):
                target = run.sample(drawn)
                made = one_step(run.models, student, drawn.noise, drawn.text)
                painted = tiny.decoder(made) / 2 + 0.5
                judged = critic(painted).float()
                matched = _matched(backbone, made, target, drawn)
            error = settings.adversarial * losses.fooling(judged) + settings.matching * matched
            loop.backward(error)
            loop.note(matching=matched.detach(), loss=error.detach())
            with loop.precision():
                real = run.models.decode(target)
            judge(loop, critic, real=real, made=painted)
        loop.update("student")
        loop.update("critic")


def renewed(noise: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Noise of which a part is drawn anew: √(1 − share) · noise + √share · fresh.

    As strong as before. What the ControlNet must not read out of the noise, it has to take from
    the control picture (SDXS, 3.3).
    """
    fresh = torch.randn(noise.shape, generator=generator).to(noise)
    mixed: Tensor = (1 - share) ** 0.5 * noise + share**0.5 * fresh
    return mixed


def _compared(run: Run, student: Any, drawn: Drawn) -> list[Tensor]:
    """The few steps' picture and that of one, from the same noise."""
    made = one_step(run.models, student, drawn.noise, drawn.text)
    return [run.models.decode(latents) for latents in (run.sample(drawn), made)]


def _matched(backbone: backbones.Backbone, made: Tensor, target: Tensor, drawn: Drawn) -> Tensor:
    with torch.no_grad():
        wanted = [one.float() for one in backbone(target, drawn.text)]
    return feature_matching([one.float() for one in backbone(made, drawn.text)], wanted)


def _eleven(
    run: Run,
    loop: Loop,
    settings: Distillation,
    backbone: backbones.Backbone,
    made: Tensor,
    target: Tensor,
    shown: Shown,
    online: Any,
) -> Tensor:
    """(11): the score's pull on a segment, and λ_FM times the feature matching."""
    models, drawn = run.models, shown.drawn
    schedule: dict[str, Any] = {"steps": settings.steps, "hold": settings.hold}
    first, last = settings.alpha
    alpha = scores.annealed(loop.step, first=first, last=last, **schedule)
    first, last = settings.matching
    share = scores.annealed(loop.step, first=first, last=last, **schedule)
    clean = shown.made
    with torch.no_grad(), loop.precision():
        t = scores.segment(len(clean), alpha=alpha, generator=drawn.generator).to(clean.device)
        noise = torch.randn(clean.shape, generator=drawn.generator).to(clean)
        noisy = models.diffusion.noised(clean, noise, t)
        given: dict[str, Any] = {"control": shown.original}
        offline = predicted(
            models, models.teacher, noisy, t, drawn.text, guidance=settings.guidance, **given
        )
        following = predicted(models, online, noisy, t, drawn.text, **given)
    pull = scores.gradient(
        models.diffusion,
        clean=clean,
        noisy=noisy,
        t=t,
        offline=noise_of(models, noisy, offline, t),
        online=noise_of(models, noisy, following, t),
        weight=scores.WEIGHTS[settings.weight],
    )
    error = scores.surrogate(made, pull)
    if share:
        with loop.precision():
            matched = _matched(backbone, made, target, drawn)
        error = error + share * matched
        loop.note(matching=matched.detach())
    loop.note(loss=error.detach(), pull=pull.square().mean(), alpha=alpha, lambda_fm=share)
    return error


def _follow(run: Run, loop: Loop, settings: Distillation, shown: list[Shown], online: Any) -> None:
    """(1) on all that the student made in this step: the online network follows it."""
    models = run.models
    for _ in range(settings.online_steps):
        for one in shown:
            made, generator = one.made, one.drawn.generator
            t = torch.randint(0, TIMESTEPS, (len(made),), generator=generator).to(made.device)
            noise = torch.randn(made.shape, generator=generator).to(made)
            noisy = models.diffusion.noised(made, noise, t)
            with loop.precision():
                found = predicted(models, online, noisy, t, one.drawn.text, control=one.original)
            followed = losses.denoising(found, asked(models, made, noise, t))
            loop.backward(followed)
            loop.note(online=followed.detach())
        loop.update("online")
