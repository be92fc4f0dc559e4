"""The YAML of a training in small."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nodes.sdxs.distill.settings import Positive, Section, Share, Stage, Weight

Alpha = Annotated[float, Field(gt=0, le=1)]


class Data(Section):
    """The pictures.

    Attributes:
        pictures: How many.
        size: Their side in pixels.
        photo_share: What share of them are views of photographs; the others are dead leaves.
        shares: How often each style is asked for in relation to the others, 1 where left out.
        blends: What share of all is asked for in a blend of two styles.
    """

    pictures: Positive
    size: Positive = 192
    photo_share: Share = 0.45
    shares: dict[str, float] = Field(default_factory=dict)
    blends: Share = 0.0


class Paired(Stage):
    """A stage that draws crops of pairs: `crop` pixels, a multiple of 32."""

    crop: Annotated[int, Field(ge=32, multiple_of=32)] = 128


class Draft(Paired):
    """The one-step regression.

    Attributes:
        start: A finished model whose weights it begins with, instead of from nothing.
    """

    start: str | None = None


class Autoencoder(Paired):
    """The encoder of styled pictures.

    Attributes:
        adversarial: λ_GAN of (5).
        adversarial_from: The share of the steps before it begins.
        pixels: How much the pixels themselves count, which the paper leaves out.
        near: How much the latents are held to the draft's, which the teacher begins at.
    """

    adversarial: Weight = 0.02
    adversarial_from: Share = 0.5
    pixels: Weight = 1.0
    near: Weight = 0.02


class Teacher(Paired):
    """Layout of the teacher: four stages, two layers each, and a middle."""

    channels: tuple[int, ...] = (32, 64, 96, 96)
    layers: Positive = 2


class Unet(Paired):
    """λ_F of L_KD."""

    features: Weight = 0.1


class WarmUp(Paired):
    """The feature-matching warm-up.

    Attributes:
        start: Whose weights it begins with: the `unet` stage's or the `draft`'s; `nothing` leaves
            the draft's encoder and decoder alone, and its U-Net has learnt nothing.
        matching: The weight of L_FM (10).
        matched: Pictures of each batch that the teacher samples for.
        teacher_steps: Of the straightened teacher.
        paired: The weight of the pixel loss against the operators' pictures, which only a
            training in small has; 0 leaves it out.
    """

    start: Literal["unet", "draft", "nothing"] = "unet"
    matching: Weight = 1.0
    matched: Positive = 4
    teacher_steps: Positive = 4
    paired: Weight = 1.0


class Score(Paired):
    """Segmented score distillation.

    Attributes:
        alpha: α at the beginning and at the end.
        matching: λ_FM at the beginning and at the end.
        distillation: The weight of the score's gradient (12).
        weight: w(t).
        online_steps: Updates of the online network for each of the student's.
        matched: As in the warm-up.
        teacher_steps: As in the warm-up.
        paired: As in the warm-up.
        start: `warmup`, or one of the warm-up's to do without it.
    """

    alpha: tuple[Alpha, Alpha] = (0.95, 0.3)
    matching: tuple[Weight, Weight] = (1.0, 0.25)
    distillation: Weight = 1.0
    weight: Literal["uniform", "levelled"] = "levelled"
    online_steps: Positive = 1
    matched: Positive = 4
    teacher_steps: Positive = 4
    paired: Weight = 1.0
    start: Literal["warmup", "unet", "draft", "nothing"] = "warmup"


class Polish(Paired):
    """The adversarial finish, through a LoRA of very low rank."""

    rank: Positive = 1
    adversarial: Weight = 0.02
    paired: Weight = 1.0


class Ablation(Paired):
    """Students without feature matching, without score distillation, and with both.

    Attributes:
        steps: Of each of them.
        matching_share: Of the steps, where there are both: feature matching comes first.
        matching: λ_FM beside score distillation, at the beginning and at the end; alone it is 1.
        matched: As in the warm-up.
        teacher_steps: As in the warm-up.
    """

    matching_share: Share = 0.67
    matching: tuple[Weight, Weight] = (1.0, 1.0)
    matched: Positive = 4
    teacher_steps: Positive = 2


class Small(Section):
    """A whole training in small.

    Attributes:
        family: `small`.
        seed: Of everything that is drawn.
        threads: Of torch, and processes that make pictures.
        styles: Operators to learn, in the order of the vocabulary.
        finish: Residual blocks after the skip connection.
    """

    family: Literal["small"]
    seed: int = 7
    threads: Positive = 2
    styles: tuple[str, ...]
    finish: int = 1
    data: Data
    autoencoder: Autoencoder
    draft: Draft
    teacher: Teacher
    unet: Unet
    warmup: WarmUp
    score: Score
    polish: Polish
    ablation: Ablation | None = None
