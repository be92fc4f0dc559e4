"""What the stages in small share: the folder, the pictures, a batch, sample grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nodes.sdxs.bundle import Bundle
from nodes.sdxs.distill import targets
from nodes.sdxs.distill.data import Batches, prepare
from nodes.sdxs.distill.loop import Loop, finished, result
from nodes.sdxs.distill.pictures import SHOWN, photographs, square
from nodes.sdxs.distill.removal import student_config
from nodes.sdxs.distill.settings import Stage
from nodes.sdxs.distill.small.conditioned import FORM, Conditioned, teacher_config
from nodes.sdxs.distill.small.latents import Autoencoder
from nodes.sdxs.distill.small.networks import grown
from nodes.sdxs.distill.small.settings import Paired, Small
from nodes.sdxs.network import NOISE_CHANNELS, Network, channels_last

STAGES = ("draft", "autoencoder", "teacher", "unet", "warmup", "score", "polish")
FORMS = dict.fromkeys(("autoencoder", "teacher", "unet", "score"), FORM)
"""What the checkpoints of these stages say of their networks, and must say to be taken."""

Report = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Batch:
    """One drawn batch; pictures are float N3HW of 0..1.

    Attributes:
        source: Without a camera's noise.
        seen: With it.
        target: What the operator makes of the source, with the paper's grain.
        wanted: The target at the strength that is asked for.
        shares: Of the styles that are asked for, float N × styles; rows add up to 1.
        paper: The noise of the paper, float N × NOISE_CHANNELS × H/4 × W/4.
        strength: float N111.
        generator: For whatever else the step draws.
    """

    source: Tensor
    seen: Tensor
    target: Tensor
    wanted: Tensor
    shares: Tensor
    paper: Tensor
    strength: Tensor
    generator: torch.Generator


class Run:
    """One training in small.

    Args:
        folder: Where everything goes: `data/`, and a folder for each stage.
        settings: From the YAML.
        report: Called with (stage, step, steps, values) now and then.
    """

    def __init__(self, folder: Path, settings: Small, *, report: Report | None = None) -> None:
        self.folder = folder
        self.settings = settings
        self._report = report
        torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        self._pictures: NDArray[np.uint8] | None = None

    def reporting(self, prefix: str) -> Report | None:
        """Where this training reports to, for another, whose stages are named with a prefix."""
        report = self._report
        if report is None:
            return None
        return lambda stage, *values: report(prefix + stage, *values)

    def stage(self, name: str) -> Stage:
        """A stage's settings."""
        stage: Stage = getattr(self.settings, name)
        return stage

    def finished(self, name: str) -> bool:
        """Whether a stage has run to its end."""
        return finished(self.folder / name, self.stage(name).steps, form=FORMS.get(name))

    def pictures(self) -> NDArray[np.uint8]:
        """The training set, made when it is first wanted."""
        if self._pictures is None:
            data = self.settings.data
            self._pictures = prepare(
                self.folder / "data",
                styles=self.settings.styles,
                count=data.pictures,
                size=data.size,
                photo_share=data.photo_share,
                workers=self.settings.threads,
            )
        return self._pictures

    def batches(self, name: str) -> Callable[[int, int], Batch]:
        """A function from (step, part) to a batch, always the same for the same numbers."""
        stage = self.stage(name)
        assert isinstance(stage, Paired)
        settings = self.settings
        drawn = Batches(
            self.pictures(),
            shares=[settings.data.shares.get(style, 1.0) for style in settings.styles],
            crop=stage.crop,
            batch=stage.batch,
            blends=settings.data.blends,
        )
        amounts = torch.tensor([targets.GRAIN.get(style, 0.0) for style in settings.styles])
        place = STAGES.index(name)

        def batch(step: int, part: int) -> Batch:
            # Generators of their own: a resumed run draws what an uninterrupted one would have.
            key = [settings.seed, place, step, part]
            rows = drawn.draw(np.random.default_rng(key))
            source, target, shares = (torch.from_numpy(one) for one in rows)
            seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
            generator = torch.Generator().manual_seed(seed)
            side = stage.crop // 4
            paper = torch.randn(len(source), NOISE_CHANNELS, side, side, generator=generator)
            strength = targets.strengths(len(source), generator)
            amount = (shares @ amounts).view(-1, 1, 1, 1)
            target = targets.textured(target, targets.grain(paper), amount)
            return Batch(
                source=source,
                seen=targets.disturbed(source, generator).to(memory_format=torch.channels_last),
                target=target,
                wanted=targets.at_strength(source, target, strength),
                shares=shares,
                paper=paper,
                strength=strength,
                generator=generator,
            )

        return batch

    def loop(
        self,
        name: str,
        *,
        networks: dict[str, nn.Module],
        averaged: tuple[str, ...],
        trained: dict[str, list[nn.Parameter]] | None = None,
    ) -> Loop:
        """The loop of a stage."""
        report = self._report
        return Loop(
            self.folder / name,
            self.stage(name),
            networks=networks,
            averaged=averaged,
            trained=trained,
            form=FORMS.get(name),
            report=None if report is None else lambda *values: report(name, *values),
        )

    def begun(self, model: str | Path) -> Network:
        """A finished model, with the styles and blocks that it lacks, painting as before.

        Args:
            model: `bundled`, or a folder in the bundled model's layout.
        """
        bundle = Bundle.open(model)
        network = Network.load(bundle.folder).requires_grad_(True)
        return grown(
            network,
            styles=self.settings.styles,
            known=bundle.styles,
            finish=self.settings.finish,
        )

    def student(self, name: str) -> Network:
        """The one-step network that a stage made."""
        network = Network(len(self.settings.styles), finish=self.settings.finish)
        network.load_state_dict(result(self.folder / name, "student", form=FORMS.get(name)))
        return channels_last(network)

    def autoencoder(self) -> Autoencoder:
        """The finished draft with its encoder of styled pictures, frozen."""
        draft = Network(len(self.settings.styles), finish=self.settings.finish)
        kept = Autoencoder(draft)
        name = "autoencoder"
        kept.load_state_dict(result(self.folder / name, name, form=FORMS[name]))
        channels_last(kept.draft)
        frozen: Autoencoder = kept.eval().requires_grad_(False)
        return frozen

    def teacher(self) -> Conditioned:
        """The finished teacher, frozen."""
        return self._conditioned("teacher", "teacher")

    def small_unet(self) -> Conditioned:
        """The small U-Net of many steps, frozen."""
        return self._conditioned("unet", "unet")

    def _conditioned(self, stage: str, name: str) -> Conditioned:
        layout = self.settings.teacher
        config = teacher_config(layout.channels, layout.layers)
        if stage == "unet":
            config = student_config(config)
        found = result(self.folder / stage, name, form=FORMS[stage])
        network = Conditioned(
            config,
            styles=len(self.settings.styles),
            spread=torch.stack([found["mean"].flatten(), found["deviation"].flatten()]),
        )
        network.load_state_dict(found)
        frozen: Conditioned = network.eval().requires_grad_(False)
        return frozen

    def grid(
        self, name: str, paint: Callable[[Tensor, Tensor, Tensor], Tensor], *, step: int
    ) -> None:
        """Draws a stage's samples into its folder: photographs below each other, styles beside.

        Args:
            name: Of the stage.
            paint: Makes pictures of pictures N3HW, shares of the styles and the noise of the paper.
            step: For the file's name.
        """
        photos = photographs()
        styles = len(self.settings.styles)
        rows = []
        for photo in SHOWN:
            picture = square(photos[photo], size=192)
            source = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
            paper = torch.randn(1, NOISE_CHANNELS, 48, 48, generator=_generator(0))
            with torch.no_grad():
                painted = paint(
                    source.expand(styles, -1, -1, -1),
                    torch.eye(styles),
                    paper.expand(styles, -1, -1, -1),
                )
            shown = (painted.float().clamp(0, 1) * 255).round().to(torch.uint8)
            rows.append(np.hstack([picture, *shown.permute(0, 2, 3, 1).numpy()]))
        path = self.folder / name / f"samples-{step:06d}.png"
        cv2.imwrite(str(path), np.vstack(rows)[:, :, ::-1])


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
