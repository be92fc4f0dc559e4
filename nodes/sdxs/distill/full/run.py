"""What the stages in full share: prompts, noise, students, the original's samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from nodes.condition.on_opencv import OpenCvExtractor
from nodes.condition.settings import setting
from nodes.sdxs.checkpoint.layouts import TAESD, control_for
from nodes.sdxs.checkpoint.text import Embedding
from nodes.sdxs.distill.full import grids
from nodes.sdxs.distill.full.models import Models, sample
from nodes.sdxs.distill.full.settings import Full
from nodes.sdxs.distill.loop import Loop, finished, result
from nodes.sdxs.distill.lora import merged
from nodes.sdxs.distill.machines import Machines
from nodes.sdxs.distill.removal import inherit, inherit_control, student_config
from nodes.sdxs.distill.settings import Stage

STAGES = ("decoder", "unet", "control", "warmup", "score", "one_step_control", "polish")
"""In their order; not every training has them all, see `stages`."""

CONTROLLED = ("control", "one_step_control")
"""Only where there is an original ControlNet."""

SHOWN = 4
"""Prompts in a grid of samples: the first ones."""

Report = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Drawn:
    """One batch.

    Attributes:
        text: Embeddings of its prompts.
        noise: x_T, float N × C × h × w.
        generator: For whatever else the step draws.
    """

    text: Embedding
    noise: Tensor
    generator: torch.Generator


class Run:
    """One training in full.

    Args:
        folder: Where everything goes.
        settings: From the YAML.
        models: The teacher's parts.
        prompts: At least one.
        machines: The processes that train together.
        report: Called with (stage, step, steps, values) now and then.
    """

    def __init__(
        self,
        folder: Path,
        settings: Full,
        models: Models,
        *,
        prompts: list[str],
        machines: Machines,
        report: Report | None = None,
    ) -> None:
        if not prompts:
            raise ValueError(f"{settings.sources.prompts} holds no prompts; one a line is needed")
        self.folder = folder
        self.settings = settings
        self.models = models
        self.machines = machines
        self._prompts = prompts
        self._report = report

    def seed(self, name: str) -> None:
        """Starts what a stage's new networks are drawn from: the same whichever ran before."""
        torch.manual_seed(self.settings.seed * len(STAGES) + STAGES.index(name))

    @property
    def stages(self) -> list[str]:
        """Those that this training has, in their order."""
        return stages(self.settings, controlled=self.models.control is not None)

    def shown(self) -> list[Drawn]:
        """Some prompts with noise, always the same, each by itself: for grids of samples."""
        found = []
        for index, prompt in enumerate(self._prompts[:SHOWN]):
            generator = torch.Generator().manual_seed(index)
            noise = self.models.noise(1, generator)
            found.append(Drawn(self.models.embed([prompt]), noise, generator))
        return found

    def stage(self, name: str) -> Stage:
        """A stage's settings."""
        stage: Stage = getattr(self.settings, name)
        return stage

    def finished(self, name: str) -> bool:
        """Whether a stage has run to its end."""
        return finished(self.folder / name, self.stage(name).steps)

    def draw(self, name: str, step: int, part: int) -> Drawn:
        """A batch, the same for the same numbers and process, and another in each process."""
        place = STAGES.index(name)
        key = [self.settings.seed, place, step, part, self.machines.rank]
        rng = np.random.default_rng(key)
        chosen = rng.integers(len(self._prompts), size=self.stage(name).batch)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return Drawn(
            self.models.embed([self._prompts[index] for index in chosen]),
            self.models.noise(len(chosen), generator),
            generator,
        )

    def sample(self, drawn: Drawn) -> Tensor:
        """The straightened teacher's latents from the batch's own noise."""
        sources = self.settings.sources
        return sample(
            self.models,
            drawn.noise,
            drawn.text,
            steps=sources.straight_steps,
            guidance=sources.straight_guidance,
        )

    def loop(
        self,
        name: str,
        *,
        networks: dict[str, nn.Module],
        averaged: tuple[str, ...],
        trained: dict[str, list[nn.Parameter]] | None = None,
        paint: Callable[[Drawn], list[Tensor]] | None = None,
    ) -> Loop:
        """The loop of a stage.

        Args:
            name: Of the stage.
            networks: Everything that is saved.
            averaged: Which of them are averaged.
            trained: As in `Loop`.
            paint: Makes pictures of a prompt by the averaged networks, float 13HW each, which are
                drawn beside each other into the stage's folder after each checkpoint.
        """
        report = self._report
        return Loop(
            self.folder / name,
            self.stage(name),
            networks=networks,
            averaged=averaged,
            trained=trained,
            machines=self.machines,
            report=None if report is None else lambda *values: report(name, *values),
            kept=None if paint is None else partial(grids.draw, self, paint),
        )

    def student(self, name: str | None) -> Any:
        """The small U-Net after a stage, or as the teacher leaves it where None."""
        config = self.student_config()
        network: Any = UNet2DConditionModel
        student = network(**config)
        if name is not None and (name != "unet" or self.settings.removes):
            student.load_state_dict(merged(self._result(name, "student")))
        elif not self.settings.removes:
            student.load_state_dict(self.models.teacher.state_dict())
        else:
            layers = self.models.teacher.config.layers_per_block
            inherit(student, self.models.teacher.state_dict(), layers=layers)
        return student.to(self.models.device)

    def student_config(self) -> dict[str, Any]:
        """The student's layout: by the rule, or Vega's own."""
        config = self.models.teacher.config
        if not self.settings.removes:
            return {key: value for key, value in config.items() if not key.startswith("_")}
        return student_config(config)

    def small_control(self, name: str | None) -> Any:
        """The small ControlNet after a stage, or as the original leaves it where None."""
        network: Any = ControlNetModel
        control = network(**control_for(self.student_config()))
        if name is not None:
            control.load_state_dict(self._result(name, "control"))
        else:
            original = self.models.control
            layers = original.config.layers_per_block
            inherit_control(control, original.state_dict(), layers=layers)
        return control.to(self.models.device)

    def autoencoder(self, *, trained: bool) -> Any:
        """The tiny autoencoder, fresh or from its stage."""
        network: Any = AutoencoderTiny
        tiny = network(**{**TAESD, "latent_channels": self.models.vae.config.latent_channels})
        if trained:
            tiny.load_state_dict(self._result("decoder", "tiny"))
        return tiny.to(self.models.device)

    def control_pictures(self, latents: Tensor) -> Tensor:
        """Control pictures of the original's own samples: float N3HW of 0..1.

        Taken from what was sampled, not from photographs, so that noise, target and control
        belong together.
        """
        extractor = OpenCvExtractor([setting(self.settings.sources.control)])
        shown = (self.models.decode(latents) * 255).round().to(torch.uint8)
        drawn = [extractor.picture(one) for one in shown.permute(0, 2, 3, 1).cpu().numpy()]
        pictures = torch.from_numpy(np.stack(drawn))[:, None].float().to(latents.device) / 255
        return pictures.expand(-1, 3, -1, -1)

    def _result(self, stage: str, name: str) -> dict[str, Tensor]:
        """A network of a finished stage.

        Raises:
            FileNotFoundError: The stage has not run.
            ValueError: It has not run to its end.
        """
        found = result(self.folder / stage, name)
        if not self.finished(stage):
            raise ValueError(
                f"the stage {stage!r} has not run to its end, step {self.stage(stage).steps}: run "
                "it first, it goes on where it stopped"
            )
        return found


def stages(settings: Full, *, controlled: bool) -> list[str]:
    """The stages of a training, in their order."""
    missing = {*(() if controlled else CONTROLLED), *(() if settings.removes else ("unet",))}
    return [name for name in STAGES if name not in missing]
