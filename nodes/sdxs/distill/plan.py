"""What a full training would take, counted on the meta device: nothing is loaded or computed.

Parameters and operations are exact for the layouts; memory is weights, gradients, optimiser and
averages plus the activations that autograd would keep; time is operations over what a GPU reaches.
Left out are what is small beside that: critics, text encoders' operations, grids of samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

from nodes.sdxs.checkpoint import parts
from nodes.sdxs.checkpoint.layouts import TAESD, control_for
from nodes.sdxs.distill import settings
from nodes.sdxs.distill.full.backbones import first_half, heard
from nodes.sdxs.distill.full.metering import Cost, cost, size
from nodes.sdxs.distill.full.run import stages
from nodes.sdxs.distill.full.settings import Distillation, Full
from nodes.sdxs.distill.layouts import TEACHERS
from nodes.sdxs.distill.machines import BUCKET

TRAINED_BYTES = 4 + 4 + 8
"""Of a trained parameter: weight, gradient and AdamW's two moments in float32; Muon has one."""
AVERAGE_BYTES = 4
FROZEN_BYTES = 4
CAST_BYTES = 2
"""Of a trained parameter in mixed precision: its copy in bfloat16, kept until the step is over."""
MIXED = 0.85
"""Of what float32 would keep: convolutions keep half, but group norms and what follows them are
computed in float32, and keep that. A residual block keeps 10 bytes of 12."""
TRAVELLING = 2 * 4 * BUCKET
"""Gradients on their way between processes, and what comes back."""
REACHED = 350e12
"""Operations a second in bfloat16 that one GPU reaches: about a third of an H100's peak."""


@dataclass(frozen=True)
class Use:
    """How a stage uses the networks: forward passes for each picture, by network.

    Attributes:
        trained: With gradients to the weights; optimiser states are needed.
        through: With gradients that only pass.
        frozen: Without gradients; the number of passes.
        averaged: Which of the trained are averaged.
    """

    trained: Mapping[str, float]
    through: Mapping[str, float] = field(default_factory=dict)
    frozen: Mapping[str, float] = field(default_factory=dict)
    averaged: tuple[str, ...] = ("student",)


@dataclass(frozen=True)
class Estimate:
    """Of one stage.

    Attributes:
        stage: Its name.
        batch: Pictures of one step, over all processes and parts.
        bytes: Of the GPU's memory, in each process.
        hours: Of one GPU; divide by their number.
    """

    stage: str
    batch: int
    bytes: int
    hours: float


@lru_cache(maxsize=4)
def costs(layout: str, resolution: int | None = None) -> Mapping[str, Cost]:
    """Every network of a layout, by name; at the layout's own resolution where left out."""
    teacher = TEACHERS[layout]
    side = resolution or teacher.resolution
    latent = side // 8
    place = torch.device("meta")
    with place:
        noise = torch.empty(1, teacher.unet["in_channels"], latent, latent)
        picture = torch.empty(1, 3, side, side)
        t = torch.zeros(1, dtype=torch.int64)
        text = torch.empty(1, 77, teacher.unet["cross_attention_dim"])
        extra = None
        if teacher.unet.get("addition_embed_type"):
            extra = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
    found: dict[str, Cost] = {}

    def unet(config: Mapping[str, Any], name: str, *, half: bool = False) -> None:
        network = _built("UNet2DConditionModel", config)
        call = partial(network, noise, t, text, added_cond_kwargs=extra)
        found[name] = cost(network, call)
        if half:
            # The first half alone, as a backbone of features, through which gradients pass.
            modules = first_half(network)
            shown = noise.clone().requires_grad_(True)
            call = partial(heard, network, modules, shown, t, text, added_cond_kwargs=extra)
            part = cost(network, call, trained=False)
            found["backbone"] = Cost(0, part.operations, part.kept)

    unet(teacher.unet, "teacher", half=True)
    unet(teacher.student, "student")
    for name, config in (
        ("original control", control_for(teacher.unet)),
        ("control", control_for(teacher.student)),
    ):
        network = _built("ControlNetModel", config)
        call = partial(network, noise, t, text, controlnet_cond=picture, added_cond_kwargs=extra)
        found[name] = cost(network, call)
    vae = _built("AutoencoderKL", teacher.vae)
    found["large decoder"] = cost(vae, lambda: vae.decode(noise))
    tiny = _built("AutoencoderTiny", TAESD)
    found["tiny autoencoder"] = cost(tiny, lambda: (tiny.decoder(noise), tiny.encoder(picture)))
    for index, (kind, config) in enumerate(teacher.text_encoders):
        with place:
            encoder = getattr(transformers, kind)(transformers.CLIPTextConfig(**config))
        found[f"text encoder {index + 1}"] = Cost(size(encoder), 0, 0)
    # The online network is the teacher once more, and so is the few-step one.
    return {**found, "online": found["teacher"], "few-step": found["teacher"]}


def uses(config: Full) -> dict[str, Use]:
    """What each stage does with the networks; the samples of the few-step model count for all."""
    sources = config.sources
    few = sources.straight_steps * (2 if sources.straight_guidance > 1 else 1)
    # The same weights in memory once, where the teacher itself is asked for few steps.
    apart = sources.straight != sources.teacher or sources.straight_lora is not None
    sampler = "few-step" if apart else "teacher"
    sample: dict[str, float] = {sampler: few}

    def scores(settings: Distillation) -> tuple[dict[str, float], int]:
        offline = 2 if settings.guidance > 1 else 1
        frozen = {"online": 1.0, "backbone": 1.0}
        asked = {"teacher": float(offline)}
        asked[sampler] = asked.get(sampler, 0.0) + few
        return {**frozen, **asked}, offline

    (score, _), (control, offline) = scores(config.score), scores(config.one_step_control)
    asked = {"teacher": 1.0}
    asked[sampler] = asked.get(sampler, 0.0) + few
    follow, followed = config.score.online_steps, config.one_step_control.online_steps
    found = {
        "decoder": Use(
            {"tiny autoencoder": 1}, {}, {**sample, "large decoder": 1}, ("tiny autoencoder",)
        ),
        "unet": Use({"student": 1}, {}, asked),
        "control": Use(
            {"control": 1},
            {"student": 1},
            {**asked, "original control": 1, "large decoder": 1},
            ("control",),
        ),
        "warmup": Use({"student": 1}, {"backbone": 1}, {**sample, "backbone": 1}),
        "score": Use({"student": 1, "online": follow}, {"backbone": 1}, score),
        "one_step_control": Use(
            {"control": 1, "online": followed},
            {"student": 1, "backbone": 1},
            {**control, "original control": offline + 1.0 + followed, "large decoder": 1},
            ("control",),
        ),
        "polish": Use(
            {}, {"student": 1, "tiny autoencoder": 0.5, "backbone": 1},
            {**sample, "large decoder": 1, "backbone": 1},
        ),
    }  # fmt: skip
    # Every one that could be run, so that the ControlNet's can be weighed, too.
    return {name: found[name] for name in stages(config, controlled=True)}


def estimate(config: Full, *, reached: float = REACHED, processes: int = 1) -> list[Estimate]:
    """Memory and time of every stage.

    Args:
        config: The training.
        reached: Operations a second of one GPU.
        processes: GPUs; the batch of a step is their number times that of one.
    """
    known = costs(config.layout, config.resolution)
    estimates = []
    for name, use in uses(config).items():
        stage: Any = getattr(config, name)
        present = {*use.trained, *use.through, *use.frozen}
        if "backbone" in present:
            # The features are those of the teacher, which is there for them.
            present = (present - {"backbone"}) | {"teacher"}
        memory = sum(known[one].parameters * FROZEN_BYTES for one in present - {*use.trained})
        memory += sum(known[one].parameters * TRAINED_BYTES for one in use.trained)
        averaged = [one for one in use.averaged if one in present]
        memory += sum(known[one].parameters * AVERAGE_BYTES for one in averaged)
        memory += sum(
            cost.parameters * FROZEN_BYTES for one, cost in known.items() if "text" in one
        )
        if stage.precision != "float32":
            memory += sum(known[one].parameters * CAST_BYTES for one in use.trained)
        memory += TRAVELLING if processes > 1 else 0
        # The student's and the online network's turns do not overlap.
        turns = [0.0, 0.0]
        for one, passes in (*use.trained.items(), *use.through.items()):
            # However often the online network is trained in a step, it is one pass at a time.
            held = 1.0 if one == "online" else passes
            turns[one == "online"] += held * known[one].kept * stage.batch
        memory += round(max(turns) * (1.0 if stage.precision == "float32" else MIXED))
        work = sum(passes * known[one].operations for one, passes in use.frozen.items())
        for one, passes in (*use.trained.items(), *use.through.items()):
            work += 3 * passes * known[one].operations
        pictures = stage.steps * stage.batch * stage.accumulate * processes
        estimates.append(
            Estimate(
                name,
                stage.batch * stage.accumulate * processes,
                memory,
                pictures * work / reached / 3600,
            )
        )
    return estimates


def show(config: str, *, console: Console, processes: int = 8) -> None:
    """Prints parameters, memory and time.

    Raises:
        ValueError: The configuration is not of a full training.
    """
    if settings.load(config, settings.Family).family != "full":
        raise ValueError(
            f"--plan is for trainings in full; {config!r} is in small, and takes minutes to hours"
        )
    wanted = settings.load(config, Full)
    networks = Table("network", "parameters", "operations a picture", title=wanted.layout)
    for name, one in costs(wanted.layout, wanted.resolution).items():
        if one.parameters and name not in ("online", "few-step"):
            networks.add_row(name, f"{one.parameters:,}", f"{one.operations / 1e12:.2f} T")
    console.print(networks)
    stages = Table("stage", "pictures a step", "memory of each", f"hours of {processes} GPUs")
    total = 0.0
    for found in estimate(wanted, processes=processes):
        hours = found.hours / processes
        total += hours
        memory = f"{found.bytes / 2**30:.0f} GiB"
        stages.add_row(found.stage, str(found.batch), memory, f"{hours:.1f}")
    stages.add_row("all", "", "", f"{total:.1f}")
    console.print(stages)
    console.print(
        f"{processes} processes, {REACHED / 1e12:.0f} T operations a second each; "
        f"in the order {', '.join(uses(wanted))}; the stages of ControlNets only with "
        "sources.controls.",
        highlight=False,
        soft_wrap=True,
    )


def _built(kind: str, config: Mapping[str, Any]) -> Any:
    network: Any = parts.build(kind, config)
    return network.to("meta")
