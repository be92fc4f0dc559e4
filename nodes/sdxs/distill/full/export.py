"""From checkpoints to a model's folder in diffusers' layout, which the node takes as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nodes.sdxs.checkpoint.layouts import BETAS
from nodes.sdxs.distill.full.run import Run

STUDENTS = ("warmup", "score", "one_step_control", "polish")
"""Stages after which there is a U-Net of one step."""

CONTROL = "control"
"""Folder of the one-step ControlNet, inside the model's."""

SCHEDULE = {
    **BETAS,
    # One step of it is exactly x₀ = (x − σ ε) / α, which the student was trained to give.
    "clip_sample": False,
    "set_alpha_to_one": True,
    "timestep_spacing": "trailing",
    "steps_offset": 1,
}


def export(run: Run, name: str, folder: Path) -> Path:
    """Writes a model: U-Net, tiny autoencoder, text encoders, schedule, ControlNet if it has one.

    Args:
        run: The training.
        name: One of `STUDENTS`; after `one_step_control` the U-Net is that of `score`.
        folder: Made if it is not there.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: The stage, or that of the tiny decoder, has not run.
        ValueError: It has not run to its end.
    """
    import diffusers

    models = run.models
    pairs = models.encoders.pairs
    unet = run.student("score" if name == "one_step_control" else name)
    scheduler: Any = diffusers.DDIMScheduler
    betas = dict(zip(("beta_start", "beta_end"), models.betas, strict=True))
    parts: dict[str, Any] = {
        "unet": unet,
        "vae": run.autoencoder(trained=True),
        "scheduler": scheduler.from_config(
            {
                **SCHEDULE,
                **betas,
                "prediction_type": "v_prediction" if models.velocity else "epsilon",
            }
        ),
        "tokenizer": pairs[0][0],
        "text_encoder": pairs[0][1],
    }
    kind: Any
    if len(pairs) == 2:
        kind = diffusers.StableDiffusionXLPipeline
        parts |= {"tokenizer_2": pairs[1][0], "text_encoder_2": pairs[1][1]}
        parts["add_watermarker"] = False
    else:
        kind = diffusers.StableDiffusionPipeline
        parts |= {
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
    kind(**parts).save_pretrained(folder)
    for index, (tokenizer, _) in enumerate(pairs):
        # Newer versions of transformers write one file of their own instead of these two.
        place = folder / ("tokenizer" if index == 0 else "tokenizer_2")
        if not (place / "merges.txt").is_file():
            tokenizer.backend_tokenizer.model.save(str(place))
    if "one_step_control" in run.stages and run.finished("one_step_control"):
        run.small_control("one_step_control").save_pretrained(folder / CONTROL)
    return folder
