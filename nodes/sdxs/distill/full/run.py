"""What the stages in full share: prompts, noise, students, the original's samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
from nodes.sdxs.distill.full.models import Models, sample
from nodes.sdxs.distill.full.settings import Full
from nodes.sdxs.distill.loop import Loop, finished, result
from nodes.sdxs.distill.machines import Machines
from nodes.sdxs.distill.removal import inherit, student_config
from nodes.sdxs.distill.settings import Stage

STAGES = ("decoder", "unet", "control", "warmup", "score", "one_step_control", "polish")
"""In their order; `control` and `one_step_control` only where there is an original ControlNet."""

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
        torch.manual_seed(settings.seed)

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
    ) -> Loop:
        """The loop of a stage."""
        report = self._report
        return Loop(
            self.folder / name,
            self.stage(name),
            networks=networks,
            averaged=averaged,
            trained=trained,
            machines=self.machines,
            report=None if report is None else lambda *values: report(name, *values),
        )

    def student(self, name: str | None) -> Any:
        """The small U-Net after a stage, or as the teacher leaves it where None."""
        config = self.student_config()
        network: Any = UNet2DConditionModel
        student = network(**config)
        if name is not None:
            student.load_state_dict(result(self.folder / name, "student"))
        elif student.config.layers_per_block == self.models.teacher.config.layers_per_block:
            # Vega: the student has the teacher's own layout.
            student.load_state_dict(self.models.teacher.state_dict())
        else:
            layers = self.models.teacher.config.layers_per_block
            inherit(student, self.models.teacher.state_dict(), layers=layers)
        return student.to(self.models.device)

    def student_config(self) -> dict[str, Any]:
        """The student's layout: by the rule, or Vega's own."""
        config = self.models.teacher.config
        if self.settings.layout == "vega":
            return {key: value for key, value in config.items() if not key.startswith("_")}
        return student_config(config)

    def small_control(self, name: str | None) -> Any:
        """The small ControlNet after a stage, or fresh where None."""
        network: Any = ControlNetModel
        control = network(**control_for(self.student_config()))
        if name is not None:
            control.load_state_dict(result(self.folder / name, "control"))
        return control.to(self.models.device)

    def autoencoder(self, *, trained: bool) -> Any:
        """The tiny autoencoder, fresh or from its stage."""
        network: Any = AutoencoderTiny
        tiny = network(**{**TAESD, "latent_channels": self.models.vae.config.latent_channels})
        if trained:
            tiny.load_state_dict(result(self.folder / "decoder", "tiny"))
        return tiny.to(self.models.device)

    def control_pictures(self, latents: Tensor) -> Tensor:
        """Control pictures of the original's own samples: float N3HW of 0..1.

        Taken from what was sampled, not from photographs, so that noise, target and control
        belong together.
        """
        extractor = OpenCvExtractor([setting(self.settings.sources.control)])
        shown = (self.models.decode(latents) * 255).round().to(torch.uint8)
        drawn = [extractor.picture(one) for one in shown.permute(0, 2, 3, 1).cpu().numpy()]
        pictures = torch.from_numpy(np.stack(drawn))[:, None].expand(-1, 3, -1, -1)
        return pictures.float().to(latents.device) / 255
