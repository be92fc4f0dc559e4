from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from nodes.sdxs.distill.layouts import TEACHERS
from nodes.sdxs.distill.removal import Listening, endow, inherit, outlets, student_config

UNet: Any = UNet2DConditionModel
SMALL: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16, 24, 24),
    "layers_per_block": 2,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


@pytest.mark.parametrize(
    ("teacher", "before", "after"),
    [("sd15", 859_520_964, 315_746_244), ("sd21", 865_910_724, 318_695_364)],
)
def test_the_students_have_the_published_sizes(teacher: str, before: int, after: int) -> None:
    """315.7 M is SDXS-512 DreamShaper, 319 M that of the paper."""
    with torch.device("meta"):
        full = UNet(**TEACHERS[teacher].unet)
        small = UNet(**student_config(full.config))
    assert sum(one.numel() for one in full.parameters()) == before
    assert sum(one.numel() for one in small.parameters()) == after
    assert small.mid_block is None


def test_every_weight_of_a_student_comes_from_its_teacher() -> None:
    torch.manual_seed(0)
    teacher = UNet(**SMALL)
    student = UNet(**student_config(teacher.config))
    taken = inherit(student, teacher.state_dict(), layers=2)
    assert taken.new == ()
    assert set(taken.taken) == set(student.state_dict())
    # The first and the last layer of each upsampling stage, one stage further up.
    ours, theirs = student.state_dict(), teacher.state_dict()
    for mine, its in (
        ("up_blocks.0.resnets.0.conv1.weight", "up_blocks.1.resnets.0.conv1.weight"),
        ("up_blocks.0.resnets.1.conv1.weight", "up_blocks.1.resnets.2.conv1.weight"),
        ("up_blocks.2.resnets.1.conv2.bias", "up_blocks.3.resnets.2.conv2.bias"),
        ("down_blocks.1.attentions.0.proj_in.weight", "down_blocks.1.attentions.0.proj_in.weight"),
    ):
        assert torch.equal(ours[mine], theirs[its])
    sample = torch.randn(1, 4, 16, 16)
    out = student(sample, 10, torch.randn(1, 3, 8), return_dict=False)[0]
    assert out.shape == sample.shape
    assert torch.isfinite(out).all()


def test_what_is_endowed_is_inherited_again() -> None:
    torch.manual_seed(0)
    config = student_config(SMALL)
    student = UNet(**config)
    teacher = UNet(**{**SMALL, "in_channels": 9})
    endow(teacher, student.state_dict(), layers=2)
    again = UNet(**{**config, "in_channels": 9})
    inherit(again, teacher.state_dict(), layers=2)
    sample, text = torch.randn(2, 4, 16, 16), torch.randn(2, 3, 8)
    wider = torch.cat([sample, torch.randn(2, 5, 16, 16)], 1)
    with torch.no_grad():
        wanted = student(sample, 7, text, return_dict=False)[0]
        assert torch.allclose(again(wider, 7, text, return_dict=False)[0], wanted, atol=1e-5)


def test_the_compared_layers_fit_each_other() -> None:
    teacher = UNet(**SMALL)
    student = UNet(**student_config(teacher.config))
    heard = []
    for unet in (teacher, student):
        with torch.no_grad(), Listening(outlets(unet)) as listening:
            unet(torch.randn(1, 4, 16, 16), 3, torch.randn(1, 3, 8))
        heard.append([tuple(one.shape[1:]) for one in listening.heard])
    assert heard[0] == heard[1]
    assert len(heard[0]) == 6
    # Nothing listens any more.
    count = len(listening.heard)
    student(torch.randn(1, 4, 16, 16), 3, torch.randn(1, 3, 8))
    assert len(listening.heard) == count


def test_a_teacher_of_one_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="the teacher has 1 stage"):
        student_config({**SMALL, "block_out_channels": (8,)})
