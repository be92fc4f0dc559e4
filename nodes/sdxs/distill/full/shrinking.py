"""The small networks in full (SDXS, 3.1): decoder and encoder, U-Net, ControlNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodes.sdxs.distill import losses
from nodes.sdxs.distill.critic import Critic
from nodes.sdxs.distill.diffusion import TIMESTEPS
from nodes.sdxs.distill.full.models import Control, velocity
from nodes.sdxs.distill.full.run import Drawn, Run
from nodes.sdxs.distill.loop import Loop
from nodes.sdxs.distill.removal import Listening, outlets


def decoder(run: Run) -> None:
    """(5) on latents that the straightened teacher samples; no photographs are needed.

    The encoder likewise: it must find the latent that a decoded picture came from.
    """
    settings = run.settings.decoder
    tiny = run.autoencoder(trained=False)
    critic = Critic(3, width=64).to(run.models.device)
    loop = run.loop("decoder", networks={"tiny": tiny, "critic": critic}, averaged=("tiny",))
    scale = run.models.vae.config.scaling_factor
    for step in loop:
        for part in loop.parts():
            latents = run.sample(run.draw("decoder", step, part))
            pictures = run.models.decode(latents)
            with loop.precision():
                made = tiny.decoder(latents) / 2 + 0.5
                again = tiny.encoder(pictures * 2 - 1)
                judged = critic(made)
            error = losses.reconstruction(made.float(), pictures)
            loop.note(areas=error.detach())
            error = error + settings.adversarial * losses.fooling(judged.float())
            # In units of the teacher's own latents, whose deviation is 1 / scaling factor.
            encoded = losses.output_distillation(again.float(), latents)
            loop.backward(error + settings.encoder * encoded)
            loop.note(encoder=encoded.detach(), scale=float(scale))
        loop.update("tiny", loss=error.detach())
        critic.zero_grad(set_to_none=True)
        with loop.precision():
            real, fake = critic(pictures).float(), critic(made.detach()).float()
        doubt = losses.judging(real, fake)
        loop.backward(doubt * settings.accumulate)
        loop.update("critic", critic=doubt.detach())


def unet(run: Run) -> None:
    """Block removal, then L_KD at every timestep."""
    student = run.student(None)
    loop = run.loop("unet", networks={"student": student}, averaged=("student",))
    for step in loop:
        for part in loop.parts():
            drawn = run.draw("unet", step, part)
            noisy, t = _noised(run, drawn, run.sample(drawn))
            error = _distilled(run, loop, "unet", drawn, noisy, t, student)
            loop.backward(error)
        loop.update("student", loss=error.detach())


def control(run: Run) -> None:
    """The small ControlNet, distilled through the U-Nets that it and the original steer."""
    small = run.student("unet").eval().requires_grad_(False)
    network = run.small_control(None)
    loop = run.loop("control", networks={"control": network}, averaged=("control",))
    for step in loop:
        for part in loop.parts():
            drawn = run.draw("control", step, part)
            latents = run.sample(drawn)
            pictures = run.control_pictures(latents)
            noisy, t = _noised(run, drawn, latents)
            error = _distilled(
                run,
                loop,
                "control",
                drawn,
                noisy,
                t,
                small,
                controls=(Control(network, pictures), Control(run.models.control, pictures)),
            )
            loop.backward(error)
        loop.update("control", loss=error.detach())


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
    """L_KD; with ControlNets over the features of the U-Nets' second halves alone."""
    settings: Any = run.stage(name)
    models = run.models
    layers = [outlets(one) for one in (student, models.teacher)]
    if controls is not None:
        layers = [found[len(found) // 2 :] for found in layers]
    mine, its = controls or (None, None)
    with loop.precision():
        with torch.no_grad(), Listening(layers[1]) as theirs:
            taught = velocity(models, models.teacher, noisy, t, drawn.text, control=its)
        with Listening(layers[0]) as ours:
            predicted = velocity(models, student, noisy, t, drawn.text, control=mine)
    features = ([one.float() for one in ours.heard], [one.float() for one in theirs.heard])
    loop.note(output=losses.output_distillation(predicted.detach().float(), taught.float()))
    return losses.knowledge_distillation(
        predicted.float(), taught.float(), features=features, feature_weight=settings.features
    )
