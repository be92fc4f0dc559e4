"""The engine against diffusers' own pipelines on the same folders."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nodes.sdxs import OneStep
from nodes.sdxs.checkpoint.engine import CheckpointOneStep

# diffusers' Euler scheduler asks numpy for what torch does not give; it is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Write = Callable[..., Path]

SIZE = 128
PROMPT = "a Castle at sea, no. 12"
SCHEDULERS = ("EulerDiscreteScheduler", "PNDMScheduler", "DEISMultistepScheduler")

CLOSE = 1e-4
"""Largest difference of latents in float32."""


@cache
def pipeline(folder: Path, *controls: Path) -> Any:
    """diffusers' own pipeline, as its `from_pretrained` makes it."""
    import diffusers

    kinds = ("StableDiffusionPipeline", "StableDiffusionControlNetPipeline")
    if (folder / "text_encoder_2").is_dir():
        kinds = ("StableDiffusionXLPipeline", "StableDiffusionXLControlNetPipeline")
    more: dict[str, Any] = {}
    if controls:
        nets = [diffusers.ControlNetModel.from_pretrained(one) for one in controls]
        more["controlnet"] = nets[0] if len(nets) == 1 else nets
    made = getattr(diffusers, kinds[bool(controls)]).from_pretrained(folder, **more)
    made.set_progress_bar_config(disable=True)
    return made


def reference(
    made: Any, *, seed: int = 7, width: int = SIZE, height: int = SIZE, **more: Any
) -> Any:
    """Latents and the picture, as float32 and uint8, of one call of the pipeline."""
    caught: list[torch.Tensor] = []

    def catch(_: Any, __: int, ___: Any, kept: dict[str, Any]) -> dict[str, Any]:
        caught.append(kept["latents"].clone())
        return kept

    picture = made(
        PROMPT,
        num_inference_steps=1,
        guidance_scale=0.0,
        width=width,
        height=height,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        callback_on_step_end=catch,
        **more,
    ).images[0]
    assert len(caught) == 1
    return caught[0], np.round(picture * 255).astype(np.uint8)


def load(folder: Path, **more: Any) -> CheckpointOneStep:
    engine = OneStep.load(folder, **more)
    assert isinstance(engine, CheckpointOneStep)
    engine.prompt = PROMPT
    engine.seed = 7
    return engine


def same(engine: CheckpointOneStep, expected: tuple[Any, NDArray[np.uint8]], **more: Any) -> None:
    latents, picture = expected
    height, width = picture.shape[:2]
    own = engine.latents(width, height, **more)
    assert own.dtype == torch.float32
    # The reference is not all alike, so that the comparison says something.
    assert latents.std() > 1
    assert float((own - latents).abs().max()) < CLOSE
    levels = engine.decode(own)[0].numpy()
    assert picture.std() > 5
    assert np.abs(levels.astype(int) - picture).max() <= 1


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("layout", ["1", "2", "xl"])
def test_latents_and_pictures_equal_those_of_the_pipeline(
    write: Write, layout: str, scheduler: str
) -> None:
    folder = write(layout, scheduler)
    same(load(folder), reference(pipeline(folder)))


def picture_of(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def conditioned(
    engine: CheckpointOneStep, made: Any, guides: list[NDArray[np.uint8]], scales: list[float]
) -> None:
    """The engine with control pictures against the pipeline with them."""
    from PIL import Image

    several = len(guides) > 1
    images: Any = [Image.fromarray(guide) for guide in guides]
    height, width = guides[0].shape[:2]
    found = reference(
        made,
        width=width,
        height=height,
        image=images if several else images[0],
        controlnet_conditioning_scale=scales if several else scales[0],
    )
    tensors = [torch.from_numpy(guide)[None] for guide in guides]
    same(engine, found, control=tensors, scale=scales)


@pytest.mark.parametrize("scale", [0.0, 0.8, 1.0, 2.0])
def test_a_controlnet_steers_as_in_the_pipeline(write: Write, control: Write, scale: float) -> None:
    folder, net = write("1", "PNDMScheduler"), control("1")
    engine = load(folder, control=net)
    conditioned(engine, pipeline(folder, net), [picture_of(SIZE, SIZE)], [scale])


@pytest.mark.parametrize(("layout", "scheduler"), [("2", "PNDMScheduler"), ("xl", SCHEDULERS[0])])
def test_controlnets_of_other_shapes_steer_too(
    write: Write, control: Write, layout: str, scheduler: str
) -> None:
    folder, net = write(layout, scheduler), control(layout)
    engine = load(folder, control=net)
    conditioned(engine, pipeline(folder, net), [picture_of(SIZE, SIZE)], [0.7])


def test_several_controlnets_add_up(write: Write, control: Write) -> None:
    folder, nets = write("1", SCHEDULERS[0]), [control("1"), control("1", seed=6)]
    guides = [picture_of(SIZE, SIZE, seed) for seed in (1, 2)]
    conditioned(load(folder, control=nets), pipeline(folder, *nets), guides, [0.5, 1.2])


@pytest.mark.parametrize(("width", "height"), [(64, 192), (72, 104), (136, 88)])
def test_other_sizes_equal_too(write: Write, control: Write, width: int, height: int) -> None:
    folder, net = write("1", SCHEDULERS[0]), control("1")
    engine = load(folder, control=net)
    conditioned(engine, pipeline(folder, net), [picture_of(width, height)], [1.0])


def test_the_size_is_told_to_models_in_the_shape_of_sdxl(write: Write) -> None:
    folder = write("xl", SCHEDULERS[0])
    made = pipeline(folder)
    engine = load(folder)
    # diffusers tells the model the size that was asked for as original and as target size.
    same(engine, reference(made, width=96, height=160))
    same(engine, reference(made, width=160, height=96))


@pytest.mark.parametrize("layout", ["1", "xl"])
def test_the_large_decoder_equals_too(write: Write, layout: str) -> None:
    folder = write(layout, SCHEDULERS[0], "large")
    same(load(folder, vae="large"), reference(pipeline(folder)))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_model_that_predicts_velocity_equals_too(write: Write, scheduler: str) -> None:
    folder = write("1", scheduler, prediction_type="v_prediction")
    latents, _ = reference(pipeline(folder))
    own = load(folder).latents(SIZE, SIZE)
    assert latents.std() > 0.5
    assert float((own - latents).abs().max()) < CLOSE


def test_the_class_of_the_index_wins_over_that_of_the_file(write: Write, tmp_path: Path) -> None:
    """The published 0.9 names PNDM in its index and Euler in its scheduler's file."""
    import json
    import shutil

    folder = shutil.copytree(write("1", "EulerDiscreteScheduler"), tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "PNDMScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    file = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    assert file["_class_name"] == "EulerDiscreteScheduler"
    file |= {"skip_prk_steps": True, "set_alpha_to_one": False}
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(file))
    made = pipeline(folder)
    assert type(made.scheduler).__name__ == "PNDMScheduler"
    engine = load(folder)
    same(engine, reference(made))
    # The two schedulers do not give the same picture.
    euler = load(write("1", "EulerDiscreteScheduler")).latents(SIZE, SIZE)
    assert float((engine.latents(SIZE, SIZE) - euler).abs().max()) > 0.05


def test_bytes_in_and_out_equal_the_pipeline(write: Write, control: Write) -> None:
    from PIL import Image

    folder, net = write("1", SCHEDULERS[0]), control("1")
    engine = load(folder, control=net)
    engine.conditioning_scale = 0.8
    picture, guide = picture_of(SIZE, SIZE, 1), picture_of(SIZE, SIZE, 2)
    made = pipeline(folder, net)
    for given, expected in (({}, picture), ({"control": guide}, guide)):
        _, levels = reference(
            made, image=Image.fromarray(expected), controlnet_conditioning_scale=0.8
        )
        assert np.abs(engine(picture, **given).astype(int) - levels).max() <= 1
    both = engine(np.stack([picture, guide]))
    for one, alone in zip(both, (picture, guide), strict=True):
        assert np.abs(one.astype(int) - engine(alone)).max() <= 1


@pytest.mark.parametrize("layout", ["1", "2", "xl"])
def test_embeddings_equal_those_of_the_pipeline(write: Write, layout: str) -> None:
    folder = write(layout, SCHEDULERS[0])
    made, engine = pipeline(folder), load(folder)
    for text in ("", PROMPT, "a cat " * 60, "Ünïcode — 漢字 🎈"):
        with torch.no_grad():
            found = made.encode_prompt(
                prompt=text,
                device=torch.device("cpu"),
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
        own = engine.embed(text)
        tokens = found[0]
        assert own.tokens.shape == tokens.shape == (1, 77, {"1": 32, "2": 48, "xl": 80}[layout])
        assert float((own.tokens - tokens).abs().max()) < 1e-5
        assert (own.pooled is None) == (layout != "xl")
        if own.pooled is not None:
            assert float((own.pooled - found[2]).abs().max()) < 1e-5
