"""The exact architectures, counted on the meta device."""

from __future__ import annotations

import pytest
import torch

from nodes.sdxs import OneStep
from nodes.sdxs.checkpoint import flops, parts
from nodes.sdxs.checkpoint import layouts as known
from nodes.sdxs.checkpoint.network import Network
from nodes.sdxs.checkpoint.schedule import step
from nodes.sdxs.checkpoint.text import build as build_text


def test_published_numbers_of_parameters() -> None:
    unets = {
        name: parts.count(parts.build("UNet2DConditionModel", layout.unet))
        for name, layout in known.LAYOUTS.items()
    }
    assert unets["sdxs-512-0.9"] == 328_177_284
    assert unets["sdxs-512-dreamshaper"] == 315_746_244
    # The paper says 0.74 B of SDXS-1024.
    assert unets["sdxs-1024"] == 745_225_604
    assert {name: unets[name] for name in known.UNET_PARAMETERS} == known.UNET_PARAMETERS
    sketch = parts.build("ControlNetModel", known.control_for(known.UNET_DREAMSHAPER))
    assert parts.count(sketch) == known.SKETCH_PARAMETERS == 186_551_440
    vae = parts.build("AutoencoderTiny", known.TAESD)
    assert parts.count(vae.encoder) == known.TINY_ENCODER_PARAMETERS == 1_222_532
    assert parts.count(vae.decoder) == known.TINY_DECODER_PARAMETERS == 1_222_531


@pytest.mark.parametrize(
    ("name", "widths"),
    # The paper: 0.33 B for SD 2.1's encoder, 0.80 B for SDXL's two; CLIP ViT-L/14 has 123 M.
    [
        ("sdxs-512-0.9", [340]),
        ("sdxs-512-dreamshaper", [123]),
        ("sdxs-1024", [123, 694]),
    ],
)
def test_text_encoders_have_their_size(name: str, widths: list[int]) -> None:
    made = [build_text(kind, config) for kind, config in known.LAYOUTS[name].text_encoders]
    assert [parts.count(one) // 1_000_000 for one in made] == widths


def test_the_control_net_gives_the_seven_residuals_of_the_sketch_model() -> None:
    layout = known.LAYOUTS["sdxs-512-dreamshaper"]
    unet = parts.build("UNet2DConditionModel", layout.unet)
    control = parts.build("ControlNetModel", known.control_for(layout.unet))
    assert unet.mid_block is None
    assert control.mid_block is not None
    assert len(control.controlnet_down_blocks) + 1 == 7
    # Eight heads at every resolution, whatever their width.
    heads = {m.heads for m in unet.modules() if type(m).__name__ == "Attention"}
    assert heads == {8}


def test_operations_of_a_picture_by_part() -> None:
    layout = known.LAYOUTS["sdxs-512-dreamshaper"]
    network = Network(
        parts.build("UNet2DConditionModel", layout.unet),
        parts.build("AutoencoderTiny", layout.vae),
        [parts.build("ControlNetModel", known.control_for(layout.unet))],
        step=step(*layout.scheduler),
        device=torch.device("meta"),
        dtype=torch.float32,
    )
    counted = flops.count(network, width=512, height=512)
    assert {part: round(number / 1e9) for part, number in counted.items()} == {
        "control": 147,
        "unet": 369,
        "decoder": 141,
    }
    assert round(sum(counted.values()) / 1e9) == 657
    # Convolutions grow with the area, attention faster.
    larger = flops.count(network, width=1024, height=512)
    assert larger["decoder"] == 2 * counted["decoder"]
    assert larger["unet"] > 2 * counted["unet"]


def test_random_weights_depend_on_the_name_alone() -> None:
    one, other = OneStep.load("random:tiny"), OneStep.load("random:tiny")
    assert one.native_size == (256, 256)
    drawn = one.noise(64, 64)  # type: ignore[attr-defined]
    assert torch.equal(drawn, other.noise(64, 64))  # type: ignore[attr-defined]
    one.prompt = other.prompt = "a castle"
    latents = one.latents(64, 64)  # type: ignore[attr-defined]
    assert torch.equal(latents, other.latents(64, 64))  # type: ignore[attr-defined]
    picture = one.decode(latents)  # type: ignore[attr-defined]
    # It looks like something: neither black nor flat.
    assert 60 < float(picture.float().mean()) < 200
    assert float(picture.float().std()) > 20
    one.prompt = "a forest"
    assert not torch.equal(one.latents(64, 64), latents)  # type: ignore[attr-defined]
