"""The stages that make one step of many: warm-up, score, polish."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from nodes.sdxs.distill import losses
from nodes.sdxs.distill import score as scores
from nodes.sdxs.distill.critic import Critic
from nodes.sdxs.distill.loop import FILE, part_of, read
from nodes.sdxs.distill.lora import insert, merged
from nodes.sdxs.distill.matching import feature_matching
from nodes.sdxs.distill.pixels import loss as pixel_loss
from nodes.sdxs.distill.removal import Listening, outlets
from nodes.sdxs.distill.small.conditioned import Conditioned, one_step
from nodes.sdxs.distill.small.latents import Autoencoder
from nodes.sdxs.distill.small.making import draw, painter
from nodes.sdxs.distill.small.networks import initialise
from nodes.sdxs.distill.small.run import Batch, Run
from nodes.sdxs.distill.targets import blended
from nodes.sdxs.network import Network, channels_last, squash


class Matching:
    """Feature matching (10) of the student's pictures to those of the teacher's few steps.

    The features are those of the encoder of styled pictures and of the first half of the teacher's
    U-Net: as the paper found, the diffusion model's own serve, and need no download.

    Args:
        kept: The frozen autoencoder.
        teacher: The frozen teacher.
        steps: Its steps; few, because its paths are nearly straight: the source says nearly all.
    """

    def __init__(self, kept: Autoencoder, teacher: Conditioned, *, steps: int) -> None:
        self.kept = kept
        self.teacher = teacher
        self._paint = painter(kept, teacher, steps=steps)
        self._modules = outlets(teacher.unet)[:2]

    def features(self, picture: Tensor, drawn: Batch, count: int) -> list[Tensor]:
        """Of pictures N3HW: the encoder's, then the U-Net's at little noise."""
        shallow, latent = self.kept.features(picture)
        t = torch.full((count,), scores.FIRST, dtype=torch.int64)
        with Listening(self._modules) as listening:
            self.teacher.clean(
                self.teacher.normalised(squash(latent)),
                t,
                source=latent,
                paper=drawn.paper[:count],
                tokens=blended(self.teacher.tokens, drawn.shares[:count]),
            )
        return [one.float() for one in (shallow, latent, *listening.heard)]

    def __call__(self, painted: Tensor, drawn: Batch, *, count: int) -> Tensor:
        """The loss over the first `count` pictures of a batch, all painted at strength 1."""
        with torch.no_grad():
            taught = self._paint(drawn.seen[:count], drawn.shares[:count], drawn.paper[:count])
            wanted = self.features(taught.clamp(0, 1), drawn, count)
        return feature_matching(self.features(painted[:count], drawn, count), wanted)


def matched(matching: Matching, student: Network, drawn: Batch, count: int) -> float:
    """The feature matching of what a student paints of a batch's first `count` pictures."""
    drawn = first_at_full(drawn, count)
    return float(matching(_painted(student, drawn), drawn, count=count))


def start(run: Run, name: str) -> Network:
    """The student that a stage begins with."""
    if name == "unet":
        return one_step(run.autoencoder().draft, run.small_unet())
    if name == "nothing":
        return blank(run)
    return run.student(name)


def blank(run: Run) -> Network:
    """The draft's encoder and decoder, with a U-Net and tokens that have learnt nothing.

    Whoever asks gets the same ones.
    """
    network = run.student("draft")
    torch.manual_seed(run.settings.seed)
    fresh = Network(len(run.settings.styles), finish=run.settings.finish)
    initialise(fresh)
    network.unet.load_state_dict(fresh.unet.state_dict())
    with torch.no_grad():
        network.tokens.copy_(fresh.tokens)
    return channels_last(network)


def warmup(run: Run) -> None:
    """Feature matching alone (10), and in small the pairs that there are."""
    settings = run.settings.warmup
    kept = run.autoencoder()
    student = start(run, settings.start)
    loop = run.loop("warmup", networks={"student": student}, averaged=("student",))
    matching = Matching(kept, run.teacher(), steps=settings.teacher_steps)
    batch = run.batches("warmup")
    for step in loop:
        for part in loop.parts():
            drawn = first_at_full(batch(step, part), settings.matched)
            with loop.precision():
                painted = _painted(student, drawn)
                error = torch.zeros(())
                if settings.matching:
                    matched = matching(painted, drawn, count=settings.matched)
                    error = error + settings.matching * matched
                    loop.note(matching=matched.detach())
            if settings.paired:
                paired = pixel_loss(painted.float(), drawn.wanted)
                error = error + settings.paired * paired
                loop.note(paired=paired.detach())
            loop.backward(error)
            loop.note(l1=(painted.detach().float() - drawn.wanted).abs().mean())
        loop.update("student", loss=error.detach())
    run.grid("warmup", draw(run.student("warmup")), step=loop.step)


def score(run: Run) -> None:
    """Segmented score distillation (11, 12): the student and the online network take turns."""
    settings = run.settings.score
    kept = run.autoencoder()
    offline = run.teacher()
    # Algorithm 1: the online network begins as a copy of the offline one.
    online = copy.deepcopy(offline).requires_grad_(True)
    student = start(run, settings.start)
    loop = run.loop("score", networks={"student": student, "online": online}, averaged=("student",))
    matching = Matching(kept, offline, steps=settings.teacher_steps)
    batch = run.batches("score")
    for step in loop:
        share = {"steps": settings.steps}
        alpha = scores.annealed(step, first=settings.alpha[0], last=settings.alpha[1], **share)
        held = scores.annealed(step, first=settings.matching[0], last=settings.matching[1], **share)
        for part in loop.parts():
            drawn = first_at_full(batch(step, part), settings.batch)
            with loop.precision():
                painted = _painted(student, drawn)
                drafted = kept.drafted(drawn.seen, shares=drawn.shares, paper=drawn.paper)
                clean = offline.normalised(kept.write(painted, drafted)).float()
                error = torch.zeros(())
                if settings.distillation:
                    source = drafted.source.float()
                    pull, lag = _pull(run, clean, drawn, source, offline, online, alpha=alpha)
                    error = error + settings.distillation * scores.surrogate(clean, pull)
                    loop.note(pull=pull.square().mean(), lag=lag)
                if held:
                    matched = matching(painted, drawn, count=settings.matched)
                    error = error + held * matched
                    loop.note(matching=matched.detach())
            if settings.paired:
                paired = pixel_loss(painted.float(), drawn.wanted)
                error = error + settings.paired * paired
                loop.note(paired=paired.detach())
            loop.backward(error)
        loop.update("student", alpha=alpha, lambda_fm=held)
        if settings.distillation:
            for _ in range(settings.online_steps):
                with loop.precision():
                    followed = _follow(drafted.source, online, clean.detach(), drawn)
                loop.backward(followed * settings.accumulate)
                loop.update("online", online=followed.detach())
    run.grid("score", draw(run.student("score")), step=loop.step)


def polish(run: Run) -> None:
    """The adversarial finish: a LoRA of very low rank, everything else frozen."""
    settings = run.settings.polish
    student = run.student("score")
    added = insert(student, rank=settings.rank, where=lambda name: name.startswith("unet."))
    # The layers that draw the pixels move as well: in small they are where texture is made.
    last = list(student.vae.decoder.layers[student.joint :].parameters())
    for one in last:
        one.requires_grad_(True)
    critic = Critic(6)
    loop = run.loop(
        "polish",
        networks={"student": student, "critic": critic},
        averaged=("student",),
        trained={"student": [*added, *last], "critic": list(critic.parameters())},
    )
    batch = run.batches("polish")
    for step in loop:
        for part in loop.parts():
            drawn = first_at_full(batch(step, part), settings.batch)
            with loop.precision():
                painted = _painted(student, drawn).float()
                judged = critic(torch.cat([painted, drawn.source], 1)).float()
            error = settings.adversarial * losses.fooling(judged)
            paired = pixel_loss(painted, drawn.wanted)
            loop.backward(error + settings.paired * paired)
            loop.note(paired=paired.detach())
        loop.update("student", fooling=error.detach())
        critic.zero_grad(set_to_none=True)
        with loop.precision():
            real = critic(torch.cat([drawn.target, drawn.source], 1)).float()
            made = critic(torch.cat([painted.detach(), drawn.source], 1)).float()
        doubt = losses.judging(real, made)
        loop.backward(doubt * settings.accumulate)
        loop.update("critic", critic=doubt.detach())
    run.grid("polish", draw(polished(run)), step=loop.step)


def polished(run: Run) -> Network:
    """The student of the last stage, its LoRA merged."""
    tensors, _ = read(run.folder / "polish" / FILE)
    network = Network(len(run.settings.styles), finish=run.settings.finish)
    network.load_state_dict(merged(part_of(tensors, "average.student.")))
    return channels_last(network)


def first_at_full(drawn: Batch, count: int) -> Batch:
    """The batch with its first pictures asked for at strength 1: the teacher knows no other."""
    strength = drawn.strength.clone()
    strength[:count] = 1.0
    wanted = drawn.wanted.clone()
    wanted[:count] = drawn.target[:count]
    return Batch(**{**vars(drawn), "strength": strength, "wanted": wanted})


def _painted(student: Network, drawn: Batch) -> Tensor:
    tokens = blended(student.tokens, drawn.shares)
    return student.paint(drawn.seen, tokens, drawn.paper, drawn.strength)


def _pull(
    run: Run,
    clean: Tensor,
    drawn: Batch,
    source: Tensor,
    offline: Conditioned,
    online: Conditioned,
    *,
    alpha: float,
) -> tuple[Tensor, Tensor]:
    """(12) at a timestep of the segment for each picture, and the online network's lag.

    That is its error in the student's latents over the offline network's, which does not follow:
    1 at the beginning, and less when it has learnt what the student makes.
    """
    diffusion = offline.diffusion
    with torch.no_grad():
        t = scores.segment(len(clean), alpha=alpha, generator=drawn.generator)
        noise = torch.randn(clean.shape, generator=drawn.generator)
        noisy = diffusion.noised(clean, noise, t)
        guesses = []
        for network in (offline, online):
            guess = network.clean(
                noisy,
                t,
                source=source,
                paper=drawn.paper,
                tokens=blended(network.tokens, drawn.shares),
            )
            guesses.append(guess.float())
        pull = scores.gradient(
            diffusion,
            clean=clean,
            noisy=noisy,
            t=t,
            offline=diffusion.noise_of(noisy, guesses[0], t),
            online=diffusion.noise_of(noisy, guesses[1], t),
            weight=scores.WEIGHTS[run.settings.score.weight],
        )
        theirs, its = (losses.denoising(guess, clean) for guess in guesses)
        return pull, its / theirs


def _follow(source: Tensor, online: Conditioned, clean: Tensor, drawn: Batch) -> Tensor:
    """(1) on the student's own latents: the online network follows the student."""
    diffusion = online.diffusion
    t = torch.randint(0, 1000, (len(clean),), generator=drawn.generator)
    noise = torch.randn(clean.shape, generator=drawn.generator)
    predicted = online.clean(
        diffusion.noised(clean, noise, t),
        t,
        source=source,
        paper=drawn.paper,
        tokens=blended(online.tokens, drawn.shares),
    )
    return losses.denoising(predicted.float(), clean, weight=diffusion.importance(t, clean))
