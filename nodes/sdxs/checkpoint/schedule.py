"""The one step, as one linear combination.

Every scheduler's single step from pure noise n to the final latent is, for a model that predicts
the noise or the velocity, linear in n and in the prediction p:

    model input  = input · n
    latent       = noise · n + prediction · p

so that an engine needs the four numbers of `Step` and no scheduler. They are derived here from
ᾱ, the cumulative product of 1 − β, for the schedulers that diffusers' `from_pretrained` may make of
an SDXS repository. They equal diffusers' own (tests hold them to each other), which compute ᾱ in
float32; so does this module, because ᾱ(999) is small and its rounding is visible.

Sources: Euler, Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models"
(2022), algorithm 1 without churn; PNDM, Liu et al. (2022), equation 9, whose first step is DDIM's,
Song et al. (2020), equation 12; DEIS, Zhang and Chen (2022), of first order, which is DDIM's too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCHEDULERS = (
    "EulerDiscreteScheduler",
    "PNDMScheduler",
    "DEISMultistepScheduler",
    "DDIMScheduler",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step from unit noise to a latent.

    Attributes:
        scheduler: The class of diffusers that it equals.
        timestep: What the network is told; the last one of the training schedule.
        input: Factor on the noise before the network sees it.
        noise: Factor on the noise in the latent.
        prediction: Factor on the network's output in the latent.
        caution: What the file says that is not done, as a sentence; None if it is done.
    """

    scheduler: str
    timestep: int
    input: float
    noise: float
    prediction: float
    caution: str | None = None


def step(scheduler: str, config: Mapping[str, Any]) -> Step:
    """The step that a scheduler of diffusers takes when it is asked for one.

    Args:
        scheduler: Name of the class, one of `SCHEDULERS`. Where `model_index.json` and
            `scheduler_config.json` disagree, diffusers takes the class of the former and the
            values of the latter.
        config: Its values; diffusers' defaults stand in for those that are missing.

    Raises:
        ValueError: The class or one of its values is not supported.
    """
    if scheduler not in SCHEDULERS:
        raise ValueError(
            f"the scheduler {scheduler} is not supported; supported are {', '.join(SCHEDULERS)}"
        )
    for key in ("thresholding", "rescale_betas_zero_snr", "clip_sample"):
        # `clip_sample` is DDIM's alone; others carry it along without a meaning.
        if config.get(key) and (key != "clip_sample" or scheduler == "DDIMScheduler"):
            raise ValueError(f"{key} of {scheduler} is not supported: the step is not linear then")
    if scheduler == "DDIMScheduler" and "clip_sample" not in config:
        raise ValueError("DDIMScheduler clips by default: its file must say clip_sample: false")
    velocity = _velocity(config)
    alphas = _alphas_cumprod(config)
    last = len(alphas) - 1
    if scheduler == "EulerDiscreteScheduler":
        scale, noise, prediction = _euler(alphas, velocity, config)
    else:
        final = _final(scheduler, alphas, config)
        scale, (noise, prediction) = 1.0, _ddim(alphas[last], final, velocity)
    return Step(
        scheduler, last, scale, noise, prediction, caution=_caution(scheduler, last, config)
    )


def _euler(
    alphas: list[float], velocity: bool, config: Mapping[str, Any]
) -> tuple[float, float, float]:
    for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
        if config.get(key):
            raise ValueError(f"{key} of EulerDiscreteScheduler is not supported")
    if config.get("timestep_type", "discrete") != "discrete":
        raise ValueError("timestep_type of EulerDiscreteScheduler must be discrete")
    sigma = math.sqrt((1 - alphas[-1]) / alphas[-1])
    # The noise has the variance of the schedule's end; `leading` adds the picture's own, 1.
    spread = sigma if config.get("timestep_spacing") != "leading" else math.hypot(sigma, 1)
    ending = config.get("final_sigmas_type", "zero")
    if ending not in ("zero", "sigma_min"):
        raise ValueError(f"final_sigmas_type must be zero or sigma_min, not {ending!r}")
    end = 0.0 if ending == "zero" else math.sqrt((1 - alphas[0]) / alphas[0])
    # The derivative, as a combination of the sample and the prediction.
    if velocity:
        of_sample, of_prediction = sigma / (sigma**2 + 1), 1 / math.sqrt(sigma**2 + 1)
    else:
        of_sample, of_prediction = 0.0, 1.0
    return (
        spread / math.hypot(sigma, 1),
        spread * (1 + of_sample * (end - sigma)),
        of_prediction * (end - sigma),
    )


def _ddim(alpha: float, final: float, velocity: bool) -> tuple[float, float]:
    noise = math.sqrt(final / alpha)
    prediction = math.sqrt(1 - final) - math.sqrt(final) * math.sqrt(1 - alpha) / math.sqrt(alpha)
    if not velocity:
        return noise, prediction
    # ε = √ᾱ·v + √(1−ᾱ)·x
    return noise + prediction * math.sqrt(1 - alpha), prediction * math.sqrt(alpha)


def _final(scheduler: str, alphas: list[float], config: Mapping[str, Any]) -> float:
    if scheduler == "DEISMultistepScheduler":
        for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
            if config.get(key):
                raise ValueError(f"{key} of DEISMultistepScheduler is not supported")
        if config.get("use_flow_sigmas"):
            raise ValueError("use_flow_sigmas of DEISMultistepScheduler is not supported")
        return alphas[0]
    if scheduler == "PNDMScheduler" and not config.get("skip_prk_steps", False):
        raise ValueError("PNDMScheduler must have skip_prk_steps: its other steps are several")
    to_one = config.get("set_alpha_to_one", scheduler == "DDIMScheduler")
    return 1.0 if to_one else alphas[0]


def _velocity(config: Mapping[str, Any]) -> bool:
    kind = config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise ValueError(f"prediction_type must be epsilon or v_prediction, not {kind!r}")
    return bool(kind == "v_prediction")


def _caution(scheduler: str, last: int, config: Mapping[str, Any]) -> str | None:
    spacing = config.get(
        "timestep_spacing",
        {"PNDMScheduler": "leading", "DDIMScheduler": "leading"}.get(scheduler, "linspace"),
    )
    if spacing not in ("linspace", "leading", "trailing"):
        raise ValueError(f"timestep_spacing must be linspace, leading or trailing, not {spacing!r}")
    offset = int(config.get("steps_offset", 0))
    count = last + 1
    if spacing == "trailing":
        own = last
    elif scheduler == "DEISMultistepScheduler":
        own = last if spacing == "linspace" else count // 2 + offset
    else:
        own = 0 if spacing == "linspace" else offset
    if own == last:
        return None
    return (
        f"{scheduler} with timestep_spacing {spacing} would take its one step at t = {own}, where "
        f"a one-step model was never trained; t = {last} is taken instead, as with trailing"
    )


def _alphas_cumprod(config: Mapping[str, Any]) -> list[float]:
    """ᾱ of every training step, in float32 as diffusers computes it."""
    import torch

    count = int(config.get("num_train_timesteps", 1000))
    kind = config.get("beta_schedule", "linear")
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    if (trained := config.get("trained_betas")) is not None:
        betas = torch.tensor(trained, dtype=torch.float32)
    elif kind == "linear":
        betas = torch.linspace(start, end, count, dtype=torch.float32)
    elif kind == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
    else:
        raise ValueError(f"beta_schedule must be linear or scaled_linear, not {kind!r}")
    cumulative: list[float] = torch.cumprod(1.0 - betas, dim=0).tolist()
    return cumulative
