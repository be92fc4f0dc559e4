"""The small networks in full (SDXS, 3.1): decoder and encoder, U-Net, ControlNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodes.sdxs.distill import losses
from nodes.sdxs.distill.critic import Critic
from nodes.sdxs.distill.diffusion import TIMESTEPS
from nodes.sdxs.distill.full.adversarial import judge, unmoved
from nodes.sdxs.distill.full.models import Control, predicted, sample
from nodes.sdxs.distill.full.run import Drawn, Run
from nodes.sdxs.distill.loop import Loop
from nodes.sdxs.distill.removal import Listening, outlets

STEPS = 16
"""Of the many-step networks in grids of samples."""


def decoder(run: Run) -> None:
    """(5) on latents that the straightened teacher samples; no photographs are needed.

    The encoder likewise: it must find the latent that a decoded picture came from.
    """
    settings = run.settings.decoder
    tiny = run.autoencoder(trained=False)
    critic = Critic(3, width=64).to(run.models.device)

    def paint(drawn: Drawn) -> list[Tensor]:
        latents = run.sample(drawn)
        return [run.models.decode(latents), tiny.decoder(latents) / 2 + 0.5]

    loop = run.loop(
        "decoder", networks={"tiny": tiny, "critic": critic}, averaged=("tiny",), paint=paint
    )
    for step in loop:
        for part in loop.parts():
            with loop.precision():
                latents = run.sample(run.draw("decoder", step, part))
            # The pictures to be learnt are not rounded.
            pictures = run.models.decode(latents)
            with loop.precision(), unmoved(critic):
                made = tiny.decoder(latents) / 2 + 0.5
                again = tiny.encoder(pictures * 2 - 1)
                judged = critic(made)
            areas = losses.reconstruction(made.float(), pictures)
            error = areas + settings.adversarial * losses.fooling(judged.float())
            # In units of the teacher's own latents, whose deviation is 1 / scaling factor.
            encoded = losses.output_distillation(again.float(), latents)
            loop.backward(error + settings.encoder * encoded)
            loop.note(areas=areas.detach(), encoder=encoded.detach(), loss=error.detach())
            judge(loop, critic, real=pictures, made=made)
        loop.update("tiny")
        loop.update("critic")


def unet(run: Run) -> None:
    """Block removal, then L_KD at every timestep."""
    student = run.student(None)
    models = run.models

    def paint(drawn: Drawn) -> list[Tensor]:
        return [models.decode(_many_steps(run, one, drawn)) for one in (models.teacher, student)]

    loop = run.loop("unet", networks={"student": student}, averaged=("student",), paint=paint)
    for step in loop:
        for part in loop.parts():
            drawn = run.draw("unet", step, part)
            with loop.precision():
                latents = run.sample(drawn)
            noisy, t = _noised(run, drawn, latents)
            loop.backward(_distilled(run, loop, "unet", drawn, noisy, t, student))
        loop.update("student")


def control(run: Run) -> None:
    """The small ControlNet, distilled through the U-Nets that it and the original steer."""
    small = run.student("unet").eval().requires_grad_(False)
    network = run.small_control(None)
    models = run.models

    def paint(drawn: Drawn) -> list[Tensor]:
        pictures = run.control_pictures(run.sample(drawn))
        steered = (
            (models.teacher, Control(models.control, pictures)),
            (small, Control(network, pictures)),
        )
        made = [_many_steps(run, one, drawn, control=its) for one, its in steered]
        return [pictures, *(models.decode(latents) for latents in made)]

    loop = run.loop("control", networks={"control": network}, averaged=("control",), paint=paint)
    for step in loop:
        for part in loop.parts():
            drawn = run.draw("control", step, part)
            with loop.precision():
                latents = run.sample(drawn)
                pictures = run.control_pictures(latents)
            noisy, t = _noised(run, drawn, latents)
            controls = (Control(network, pictures), Control(models.control, pictures))
            loop.backward(
                _distilled(run, loop, "control", drawn, noisy, t, small, controls=controls)
            )
        loop.update("control")


def _many_steps(run: Run, unet: Any, drawn: Drawn, *, control: Control | None = None) -> Tensor:
    guidance = run.settings.score.guidance
    return sample(
        run.models,
        drawn.noise,
        drawn.text,
        steps=STEPS,
        guidance=guidance,
        unet=unet,
        control=control,
    )


def _noised(run: Run, drawn: Drawn, latents: Tensor) -> tuple[Tensor, Tensor]:
    count = len(latents)
    t = torch.randint(0, TIMESTEPS, (count,), generator=drawn.generator).to(latents.device)
    noise = torch.randn(latents.shape, generator=drawn.generator).to(latents.device)
    return run.models.diffusion.noised(latents, noise, t), t


def _distilled(
    run: Run,
    loop: Loop,
    name: str,
    drawn: Drawn,
    noisy: Tensor,
    t: Tensor,
    student: Any,
    *,
    controls: tuple[Control, Control] | None = None,
) -> Tensor:
    """L_KD; with ControlNets over the features of the U-Nets' second halves alone.

    Outputs are compared as the networks give them. As velocities, those of a network of noise
    would count 1 / ᾱ, that is 200 times as much at the noisiest steps as at the others.
    """
    settings: Any = run.stage(name)
    models = run.models
    layers = [outlets(one) for one in (student, models.teacher)]
    if controls is not None:
        layers = [found[len(found) // 2 :] for found in layers]
    mine, its = controls or (None, None)
    with loop.precision():
        with torch.no_grad(), Listening(layers[1]) as theirs:
            taught = predicted(models, models.teacher, noisy, t, drawn.text, control=its)
        with Listening(layers[0]) as ours:
            found = predicted(models, student, noisy, t, drawn.text, control=mine)
    features = ([one.float() for one in ours.heard], [one.float() for one in theirs.heard])
    error = losses.knowledge_distillation(
        found, taught, features=features, feature_weight=settings.features
    )
    output = losses.output_distillation(found.detach(), taught)
    loop.note(output=output, loss=error.detach())
    return error
