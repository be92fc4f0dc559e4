"""The stages that make a teacher and its small U-Net: autoencoder, draft, teacher, unet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodes.sdxs.distill import losses
from nodes.sdxs.distill.critic import Critic
from nodes.sdxs.distill.pixels import loss as pixel_loss
from nodes.sdxs.distill.removal import Listening, outlets
from nodes.sdxs.distill.small.conditioned import Conditioned, student_from, teacher_from
from nodes.sdxs.distill.small.latents import Autoencoder, Drafted
from nodes.sdxs.distill.small.networks import initialise
from nodes.sdxs.distill.small.run import Batch, Run
from nodes.sdxs.distill.targets import blended
from nodes.sdxs.network import Network, channels_last, squash


def draft(run: Run) -> None:
    """One-step regression of the operators' pictures.

    Not of the paper: it stands for the pretrained networks that the paper starts from.
    """
    settings = run.settings.draft
    if settings.start is not None:
        network = run.begun(settings.start)
    else:
        network = Network(len(run.settings.styles), finish=run.settings.finish)
        initialise(network)
    network = channels_last(network)
    loop = run.loop("draft", networks={"student": network}, averaged=("student",))
    batch = run.batches("draft")
    for step in loop:
        for part in loop.parts():
            drawn = batch(step, part)
            with loop.precision():
                painted = network.paint(
                    drawn.seen, blended(network.tokens, drawn.shares), drawn.paper, drawn.strength
                )
            error = pixel_loss(painted.float(), drawn.wanted)
            loop.backward(error)
            loop.note(l1=(painted.detach().float() - drawn.wanted).abs().mean())
        loop.update("student", loss=error.detach())
    run.grid("draft", draw(run.student("draft")), step=loop.step)


def autoencoder(run: Run) -> None:
    """An encoder of styled pictures for the draft's decoder: (5), the pixels, and to be near.

    The decoder gets the latent of a styled picture and the skip connection of its source, as it
    will when the teacher has made that latent.
    """
    settings = run.settings.autoencoder
    network = Autoencoder(run.student("draft"))
    critic = Critic(3)
    loop = run.loop(
        "autoencoder",
        networks={"autoencoder": network, "critic": critic},
        averaged=("autoencoder",),
    )
    batch = run.batches("autoencoder")
    for step in loop:
        adversarial = step >= settings.adversarial_from * settings.steps
        for part in loop.parts():
            drawn = batch(step, part)
            with loop.precision():
                drafted = network.drafted(drawn.seen, shares=drawn.shares, paper=drawn.paper)
                latent = network.write(drawn.target, drafted)
                made = network.read(latent, drafted).float()
            error = losses.reconstruction(made, drawn.target)
            error = error + settings.pixels * pixel_loss(made, drawn.target)
            apart = _apart(latent.float(), squash(drafted.latent.float()))
            error = error + settings.near * apart
            if adversarial:
                with loop.precision():
                    judged = critic(made)
                error = error + settings.adversarial * losses.fooling(judged.float())
            loop.backward(error)
            l1 = (made.detach() - drawn.target).abs().mean()
            # What is left of the draft's own error: 1 and less.
            left = l1 / (drafted.painted.float() - drawn.target).abs().mean()
            loop.note(l1=l1, left=left, apart=apart.detach())
        loop.update("autoencoder", loss=error.detach())
        if adversarial:
            critic.zero_grad(set_to_none=True)
            with loop.precision():
                real, fake = critic(drawn.target), critic(made.detach())
            doubt = losses.judging(real.float(), fake.float())
            loop.backward(doubt * settings.accumulate)
            loop.update("critic", critic=doubt.detach())
    run.grid("autoencoder", _rebuild(run), step=loop.step)


def _apart(latent: Tensor, drafted: Tensor) -> Tensor:
    """Mean squared distance from the draft's latents, in units of each channel's variance."""
    variance = drafted.var((0, 2, 3), keepdim=True).clamp(min=1e-4)
    return ((latent - drafted).square() / variance).mean()


def spread(run: Run, kept: Autoencoder, *, count: int = 24) -> Tensor:
    """Mean and deviation of each channel of the styled pictures' latents: float 2 × channels."""
    batch = run.batches("teacher")
    with torch.no_grad():
        found = torch.cat([_latents(kept, batch(index, 0))[0] for index in range(count)])
    flat = found.transpose(0, 1).flatten(1)
    return torch.stack([flat.mean(1), flat.std(1).clamp(min=1e-3)])


def teacher(run: Run) -> None:
    """Many steps: denoising (1) of the styled pictures' latents, given the source and a style."""
    settings = run.settings.teacher
    kept = run.autoencoder()
    network = teacher_from(
        kept.draft,
        channels=settings.channels,
        layers=settings.layers,
        spread=spread(run, kept),
    )
    loop = run.loop("teacher", networks={"teacher": network}, averaged=("teacher",))
    batch = run.batches("teacher")
    for step in loop:
        for part in loop.parts():
            drawn = batch(step, part)
            shown = _noised(kept, network, drawn)
            with loop.precision():
                predicted = network.clean(
                    shown["noisy"],
                    shown["t"],
                    source=shown["source"],
                    paper=drawn.paper,
                    tokens=blended(network.tokens, drawn.shares),
                )
            error = losses.denoising(predicted.float(), shown["clean"], weight=shown["weight"])
            loop.backward(error)
            mse = losses.denoising(predicted.detach().float(), shown["clean"])
            loop.note(mse=mse, left=mse / losses.denoising(shown["drafted"], shown["clean"]))
        loop.update("teacher", loss=error.detach())
    run.grid("teacher", painter(kept, run.teacher(), steps=16), step=loop.step)


def unet(run: Run) -> None:
    """Block removal, then L_KD against the teacher."""
    settings = run.settings.unet
    kept = run.autoencoder()
    large = run.teacher()
    small = student_from(large)
    loop = run.loop("unet", networks={"unet": small}, averaged=("unet",))
    batch = run.batches("unet")
    for step in loop:
        for part in loop.parts():
            drawn = batch(step, part)
            shown = _noised(kept, large, drawn)
            given: dict[str, Any] = {"source": shown["source"], "paper": drawn.paper}
            with loop.precision():
                with torch.no_grad(), Listening(outlets(large.unet)) as theirs:
                    taught = large.clean(
                        shown["noisy"],
                        shown["t"],
                        **given,
                        tokens=blended(large.tokens, drawn.shares),
                    )
                with Listening(outlets(small.unet)) as ours:
                    predicted = small.clean(
                        shown["noisy"],
                        shown["t"],
                        **given,
                        tokens=blended(small.tokens, drawn.shares),
                    )
            features = (
                [one.float() for one in ours.heard],
                [one.float() for one in theirs.heard],
            )
            # As in the teacher's own loss; squared again, it is the weight.
            root = shown["weight"].sqrt()
            error = losses.knowledge_distillation(
                root * predicted.float(),
                root * taught.float(),
                features=features,
                feature_weight=settings.features,
            )
            loop.backward(error)
            loop.note(output=losses.output_distillation(predicted.detach().float(), taught.float()))
        loop.update("unet", loss=error.detach())
    run.grid("unet", painter(kept, run.small_unet(), steps=16), step=loop.step)


def painter(kept: Autoencoder, network: Conditioned, *, steps: int) -> Any:
    """A function that paints with a network of many steps, for `Run.grid` and the evaluation."""

    @torch.no_grad()
    def paint(source: Tensor, shares: Tensor, paper: Tensor) -> Tensor:
        drafted = kept.drafted(source, shares=shares, paper=paper)
        noise = torch.randn(drafted.source.shape, generator=torch.Generator().manual_seed(0))
        tokens = blended(network.tokens, shares)
        made = network.sample(noise, source=drafted.source, paper=paper, tokens=tokens, steps=steps)
        return kept.read(made, drafted)

    return paint


def draw(network: Network) -> Any:
    """A function that paints with a one-step network, for `Run.grid`."""

    def paint(source: Tensor, shares: Tensor, paper: Tensor) -> Tensor:
        strength = torch.ones(len(source), 1, 1, 1)
        return network.paint(source, blended(network.tokens, shares), paper, strength)

    return paint


def _rebuild(run: Run) -> Any:
    """Operators' pictures through the autoencoder."""
    from nodes.sdxs.styles import OPERATORS

    kept = run.autoencoder()

    def paint(source: Tensor, shares: Tensor, paper: Tensor) -> Tensor:
        drawn = []
        for picture, style in zip(source, shares.argmax(1).tolist(), strict=True):
            array = (picture.permute(1, 2, 0).numpy() * 255).round().astype("uint8")
            operator = OPERATORS[run.settings.styles[style]]
            drawn.append(torch.from_numpy(operator(array)).permute(2, 0, 1) / 255)
        drafted = kept.drafted(source, shares=shares, paper=paper)
        return kept.read(kept.write(torch.stack(drawn), drafted), drafted)

    return paint


def _latents(kept: Autoencoder, drawn: Batch) -> tuple[Tensor, Drafted]:
    """Those of a batch's styled pictures, and what the draft makes of its sources."""
    drafted = kept.drafted(drawn.seen, shares=drawn.shares, paper=drawn.paper)
    return kept.write(drawn.target, drafted), drafted


def _noised(kept: Autoencoder, network: Conditioned, drawn: Batch) -> dict[str, Tensor]:
    """The latents of a batch and what a network of many steps is shown of them."""
    with torch.no_grad():
        latent, drafted = _latents(kept, drawn)
        clean = network.normalised(latent)
    t = torch.randint(0, 1000, (len(clean),), generator=drawn.generator)
    # One in four at the noisiest, where the student will be.
    t = torch.where(torch.rand(len(clean), generator=drawn.generator) < 0.25, 999, t)
    noise = torch.randn(clean.shape, generator=drawn.generator)
    return {
        "source": drafted.source,
        "drafted": network.normalised(squash(drafted.latent)),
        "t": t,
        "clean": clean,
        "noisy": network.diffusion.noised(clean, noise, t),
        "weight": network.diffusion.importance(t, clean),
    }
