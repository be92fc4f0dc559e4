"""The YAML of a training in full."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nodes.sdxs.distill.settings import Positive, Section, Share, Stage, Weight

Segment = Annotated[float, Field(gt=0, le=1)]
Side = Annotated[int, Field(ge=64, multiple_of=64)]


class Sources(Section):
    """Where everything comes from; folders in diffusers' layout, or repositories of the hub.

    Attributes:
        teacher: The many-step model: the offline score network, and the student's first weights.
        straight: The few-step model whose samples are matched: an LCM of the teacher, say.
        straight_lora: An adapter that makes one of `straight`: an LCM-LoRA, say.
        straight_steps: Its steps.
        straight_guidance: 0 for one that was distilled with it; what it was trained for, where a
            model has learnt it as an input.
        prompts: A text file, one prompt a line.
        controls: The original ControlNet, for the stages that need one.
        control: What the control pictures are, drawn from the teacher's own samples.
        lora: An adapter for the offline network and the few-step one, and not for the online one;
            of their U-Nets alone.
    """

    teacher: str
    straight: str
    straight_lora: str | None = None
    straight_steps: Positive = 4
    straight_guidance: Weight = 0.0
    prompts: Path
    controls: str | None = None
    control: Literal["sketch", "canny", "soft", "luminance"] = "sketch"
    lora: str | None = None


class Decoder(Stage):
    """λ_GAN of (5); `encoder` is the weight of the tiny encoder's distance to the teacher's."""

    adversarial: Weight = 0.1
    encoder: Weight = 1.0


class Unet(Stage):
    """λ_F of L_KD; used by the ControlNet's distillation as well."""

    features: Weight = 1.0


class WarmUp(Stage):
    """w_l of (10) are equal; the backbone is `unet`, or a vision model's folder."""

    backbone: str = "unet"


class Distillation(Stage):
    """α and λ_FM, from the first step to the last; w(t); guidance of the offline network."""

    alpha: tuple[Segment, Segment] = (1.0, 0.5)
    matching: tuple[Weight, Weight] = (1.0, 0.1)
    hold: Share = 0.2
    weight: Literal["uniform", "levelled"] = "levelled"
    guidance: Weight = 7.5
    online_steps: Positive = 1
    backbone: str = "unet"


class Score(Distillation):
    """`start` is the stage that it goes on from: `unet` does without the warm-up."""

    start: Literal["warmup", "unet"] = "warmup"


class OneStepControl(Distillation):
    """`renewed` is the share of the student's noise that is drawn anew."""

    renewed: Share = 0.5


class Polish(Stage):
    """Rank of the LoRA and the weights of its losses."""

    rank: Positive = 1
    adversarial: Weight = 0.1
    matching: Weight = 1.0


class Full(Section):
    """A whole training in full.

    Attributes:
        family: `full`.
        layout: A name of `nodes.sdxs.distill.layouts.TEACHERS`, for `--plan`.
        resolution: Pixels along a side, a multiple of 64.
        seed: Of everything that is drawn.
        unet: Only where blocks are removed: not in the layout `vega`, which is small already.
    """

    family: Literal["full"]
    layout: Literal["sd15", "sd21", "vega"]
    resolution: Side
    seed: Annotated[int, Field(ge=0)] = 0
    sources: Sources
    decoder: Decoder
    unet: Unet | None = None
    control: Unet
    warmup: WarmUp
    score: Score
    one_step_control: OneStepControl
    polish: Polish

    @property
    def removes(self) -> bool:
        """Whether the student has fewer blocks than the teacher."""
        return self.layout != "vega"

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.removes and self.unet is None:
            raise ValueError(f"layout {self.layout} needs a section unet: blocks are removed")
        if not self.removes and self.unet is not None:
            raise ValueError(
                f"layout {self.layout} has no stage unet, for no block is removed: leave it out"
            )
        return self
