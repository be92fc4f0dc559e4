from __future__ import annotations

from typing import Any

import pytest
import torch

from nodes.sdxs.checkpoint.layouts import BETAS, LAYOUTS, SCHEDULER_0_9
from nodes.sdxs.checkpoint.schedule import SCHEDULERS, step

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def own(kind: str, config: dict[str, Any]) -> tuple[Any, Any]:
    """diffusers' scheduler set to one step, and that step's time."""
    import diffusers

    made = getattr(diffusers, kind).from_config(config)
    made.set_timesteps(1)
    return made, made.timesteps[0]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"set_alpha_to_one": True},
        {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
        {"final_sigmas_type": "sigma_min"},
        {"num_train_timesteps": 500},
    ],
    ids=["published", "to one", "linear", "sigma_min", "500"],
)
def test_the_step_is_diffusers_own(kind: str, prediction: str, changed: dict[str, Any]) -> None:
    config = {**SCHEDULER_0_9, "prediction_type": prediction, **changed}
    made, time = own(kind, config)
    found = step(kind, config)
    assert found.timestep == int(time)
    assert found.caution is None
    noise, predicted = torch.randn(2, 256, generator=torch.Generator().manual_seed(0)).unbind()
    sample = noise * made.init_noise_sigma
    seen = made.scale_model_input(sample, time)
    assert torch.allclose(seen, found.input * noise, rtol=1e-6, atol=1e-6)
    expected = made.step(predicted, time, sample, return_dict=False)[0]
    latent = found.noise * noise + found.prediction * predicted
    # diffusers computes with terms of this size, of which little is left, and rounds them.
    terms = step(kind, {**config, "prediction_type": "epsilon"}).noise * float(noise.abs().max())
    assert float((latent - expected).abs().max()) < 1e-6 * terms


def test_published_coefficients() -> None:
    """As they stand in other runtimes and in the table of the schedule."""
    euler = step("EulerDiscreteScheduler", SCHEDULER_0_9)
    assert euler.input == pytest.approx(0.997667, abs=1e-6)
    assert euler.noise == -euler.prediction == pytest.approx(14.614647, abs=1e-6)
    # 0.9 as `from_pretrained` makes it, since its index names PNDM.
    pndm = step(*LAYOUTS["sdxs-512-0.9"].scheduler)
    assert pndm.scheduler == "PNDMScheduler"
    assert (pndm.input, pndm.timestep) == (1.0, 999)
    assert pndm.noise == pytest.approx(14.642591, abs=1e-6)
    assert pndm.prediction == pytest.approx(-14.579279, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "spacing", "time"),
    [
        ("DEISMultistepScheduler", "leading", 501),
        ("PNDMScheduler", "leading", 1),
        ("EulerDiscreteScheduler", "linspace", 0),
    ],
)
def test_another_time_than_the_last_is_cautioned_against_and_not_taken(
    kind: str, spacing: str, time: int
) -> None:
    config = {**SCHEDULER_0_9, "timestep_spacing": spacing}
    assert int(own(kind, config)[1]) == time
    found = step(kind, config)
    assert found.timestep == 999
    assert found.caution is not None
    assert f"timestep_spacing {spacing} would take its one step at t = {time}" in found.caution
    trailing = step(kind, {**config, "timestep_spacing": "trailing"})
    assert (found.noise, found.prediction) == (trailing.noise, trailing.prediction)


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("LMSDiscreteScheduler", {}, "the scheduler LMSDiscreteScheduler is not supported; "),
        ("PNDMScheduler", {"skip_prk_steps": False}, "PNDMScheduler must have skip_prk_steps"),
        ("DDIMScheduler", {"clip_sample": True}, "clip_sample of DDIMScheduler is not supported"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, "use_karras_sigmas of Euler"),
        ("EulerDiscreteScheduler", {"prediction_type": "sample"}, "prediction_type must be eps"),
        ("PNDMScheduler", {"timestep_spacing": "odd"}, "timestep_spacing must be linspace, lead"),
        ("PNDMScheduler", {"beta_schedule": "cosine"}, "beta_schedule must be linear or scaled"),
        ("DEISMultistepScheduler", {"thresholding": True}, "thresholding of DEIS"),
    ],
)
def test_what_is_not_linear_or_not_known_is_refused(
    kind: str, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        step(kind, {**SCHEDULER_0_9, **changed})


def test_defaults_of_ddim_clip() -> None:
    with pytest.raises(ValueError, match="must say clip_sample: false"):
        step("DDIMScheduler", BETAS)
