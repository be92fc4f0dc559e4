from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from nodes.sdxs import OneStep

Bytes = NDArray[np.uint8]


def apart(one: Bytes, other: Bytes) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(one.astype(int) - other).mean())


def modules_after(code: str) -> set[str]:
    listing = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(listing.stdout.split())


def test_the_import_and_the_vocabulary_need_no_library_that_is_slow_to_load() -> None:
    loaded = modules_after("from nodes.sdxs import OneStep; OneStep.prompts_of('bundled')")
    assert "nodes.sdxs.engine" in loaded
    assert not loaded & {"torch", "diffusers", "openvino", "cv2", "transformers"}


def test_openvino_styles_a_picture_without_torch() -> None:
    pytest.importorskip("openvino")
    loaded = modules_after(
        "import numpy; from nodes.sdxs import OneStep\n"
        "OneStep.load(backend='openvino')(numpy.zeros((64, 64, 3), numpy.uint8))"
    )
    assert "openvino" in loaded
    assert not loaded & {"torch", "diffusers", "transformers"}


def test_properties_describe_the_model(engine: OneStep) -> None:
    assert engine.prompts == OneStep.prompts_of("bundled")
    assert {"ink", "oil", "comic", "pencil"} <= set(engine.prompts)
    assert engine.native_size == (256, 256)
    assert engine.multiple == 8
    assert engine.backend in ("openvino", "torch")
    assert engine.prompt == "ink"
    assert engine.conditioning_scale == 1.0
    assert engine.seed == 0
    assert repr(engine).startswith(f"OneStep('bundled', {engine.backend}, {engine.dtype}, ")


def test_every_style_paints_another_picture(engine: OneStep, astronaut: Bytes) -> None:
    painted = {}
    for prompt in engine.prompts:
        engine.prompt = prompt
        painted[prompt] = engine(astronaut)
        assert apart(painted[prompt], astronaut) > 6
    for one in engine.prompts:
        for other in engine.prompts:
            if one < other:
                assert apart(painted[one], painted[other]) > 6, (one, other)


def test_a_blend_lies_between_its_styles(engine: OneStep, coffee: Bytes) -> None:
    engine.prompt = "ink"
    ink = engine(coffee)
    engine.prompt = "comic"
    comic = engine(coffee)
    engine.prompt = "ink:0.5, comic:0.5"
    blend = engine(coffee)
    assert engine.prompt == "ink:0.5, comic:0.5"
    assert 3 < apart(blend, ink) < apart(comic, ink)
    assert 3 < apart(blend, comic) < apart(comic, ink)


def test_an_unknown_prompt_is_refused_with_the_vocabulary(engine: OneStep) -> None:
    with pytest.raises(
        ValueError,
        match=r"unknown prompt 'comci': model 'bundled' knows ink, oil, comic, pencil, "
        r"watercolor, neon; did you mean 'comic'\?",
    ):
        engine.prompt = "comci"
    assert engine.prompt == "ink"
    with pytest.raises(ValueError, match="unknown prompt 'comci'"):
        OneStep.check_prompt("comci")
    OneStep.check_prompt("comic")


@pytest.mark.parametrize("prompt", ["ink", "oil", "comic", "pencil", "watercolor"])
def test_conditioning_scale_goes_from_overdone_to_the_source(
    engine: OneStep, coffee: Bytes, prompt: str
) -> None:
    engine.prompt = prompt
    distances = []
    for scale in (0.0, 0.5, 1.0, 1.5, 2.0):
        engine.conditioning_scale = scale
        distances.append(apart(engine(coffee), coffee))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 8
    assert distances[0] > 1.03 * distances[2]


@pytest.mark.parametrize("scale", [-0.1, 2.1, float("nan"), "much", None])
def test_conditioning_scale_is_checked(engine: OneStep, scale: object) -> None:
    with pytest.raises(ValueError, match="conditioning_scale must be"):
        engine.conditioning_scale = scale  # type: ignore[assignment]
    assert engine.conditioning_scale == 1.0


def test_a_seed_is_one_sheet_of_paper(engine: OneStep, coffee: Bytes) -> None:
    engine.prompt = "pencil"
    first = engine(coffee)
    assert np.array_equal(engine(coffee), first)
    engine.seed = 1
    second = engine(coffee)
    assert 0.5 < apart(second, first) < 12
    engine.seed = 0
    assert np.array_equal(engine(coffee), first)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "x", None])
def test_seed_is_checked(engine: OneStep, seed: object) -> None:
    with pytest.raises(ValueError, match="seed must be"):
        engine.seed = seed  # type: ignore[assignment]
    assert engine.seed == 0


def test_out_receives_the_result(engine: OneStep, coffee: Bytes) -> None:
    expected = engine(coffee)
    out = np.zeros_like(coffee)
    assert engine(coffee, out) is out
    assert np.array_equal(out, expected)


def test_out_may_have_gaps_or_be_the_picture_itself(engine: OneStep, coffee: Bytes) -> None:
    expected = engine(coffee)
    wide = np.zeros((256, 300, 3), np.uint8)
    engine(coffee, wide[:, :256])
    assert np.array_equal(wide[:, :256], expected)
    assert not wide[:, 256:].any()
    own = coffee.copy()
    engine(own, own)
    assert np.array_equal(own, expected)


def test_the_picture_may_be_read_only_or_have_gaps(engine: OneStep, coffee: Bytes) -> None:
    expected = engine(coffee)
    wide = np.zeros((256, 300, 3), np.uint8)
    wide[:, :256] = coffee
    wide.flags.writeable = False
    assert np.array_equal(engine(wide[:, :256]), expected)


def test_a_batch_equals_its_pictures(engine: OneStep, coffee: Bytes, astronaut: Bytes) -> None:
    styled = engine(np.stack([coffee, astronaut]))
    for one, picture in zip(styled, (coffee, astronaut), strict=True):
        assert np.abs(one.astype(int) - engine(picture)).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(384, 256), (264, 136), (72, 512)])
def test_any_multiple_of_eight_works(engine: OneStep, width: int, height: int) -> None:
    from nodes.sdxs.distill.pictures import held_out

    picture = np.ascontiguousarray(held_out("astronaut", size=512)[:height, :width])
    engine.warm_up(width, height)
    styled = engine(picture)
    # The middle of a large picture and the same place in a smaller view agree but for what
    # depends on the whole view.
    whole = engine(np.ascontiguousarray(held_out("astronaut", size=512)))[:height, :width]
    assert styled.shape == picture.shape
    assert apart(styled, whole) < 20
    assert apart(styled, picture) > 6


@pytest.mark.parametrize(("width", "height"), [(260, 256), (256, 100), (0, 256), (4, 4)])
def test_other_sizes_are_refused(engine: OneStep, width: int, height: int) -> None:
    with pytest.raises(
        ValueError, match=f"width and height must be multiples of 8, not {width}x{height}"
    ):
        engine(np.zeros((height, width, 3), np.uint8))
    with pytest.raises(ValueError, match="multiples of 8"):
        engine.warm_up(width, height)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((1, 1, 64, 64, 3), np.uint8),
    ],
    ids=["grey", "alpha", "float", "five dimensions"],
)
def test_other_arrays_are_refused(engine: OneStep, picture: Bytes) -> None:
    with pytest.raises(ValueError, match="a picture must be uint8 of height × width × 3"):
        engine(picture)


def test_an_out_that_does_not_fit_is_refused(engine: OneStep) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match=r"out must be uint8 of shape \(64, 64, 3\)"):
        engine(picture, np.zeros((64, 72, 3), np.uint8))
    locked = np.zeros((64, 64, 3), np.uint8)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        engine(picture, locked)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(FileNotFoundError, match="no model 'nowhere'"):
        OneStep.load("nowhere")
