"""Block removal: the student's layout and its first weights, both from the teacher (SDXS, 3.1).

Removed are the middle stage, the last downsampling stage, the first upsampling stage and the
Transformer blocks of the highest resolution; one layer is left of those in each stage, as in
BK-SDM (Kim et al., 2023).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

PER_STAGE = (
    "attention_head_dim",
    "num_attention_heads",
    "only_cross_attention",
    "cross_attention_dim",
    "transformer_layers_per_block",
)


def student_config(teacher: Mapping[str, Any]) -> dict[str, Any]:
    """The student's `UNet2DConditionModel` configuration.

    Args:
        teacher: The teacher's; at least two stages.

    Raises:
        ValueError: The teacher has too few stages.
    """
    channels = tuple(teacher["block_out_channels"])
    stages = len(channels)
    if stages < 2:
        raise ValueError(f"the teacher has {stages} stage; one must be left when one is removed")
    config = {key: value for key, value in teacher.items() if not key.startswith("_")}
    for key in PER_STAGE:
        value = config.get(key)
        if isinstance(value, (list, tuple)):
            config[key] = tuple(value[: stages - 1])
    config.update(
        block_out_channels=channels[:-1],
        down_block_types=("DownBlock2D", *tuple(teacher["down_block_types"])[1:-1]),
        up_block_types=(*tuple(teacher["up_block_types"])[1:-1], "UpBlock2D"),
        mid_block_type=None,
        layers_per_block=1,
    )
    return config


@dataclass(frozen=True)
class Inheritance:
    """What a network took from another: names of its own tensors.

    Attributes:
        taken: Those that came whole.
        widened: Those that came as the first part of a larger tensor.
        new: Those that nothing in the other fits.
    """

    taken: tuple[str, ...]
    widened: tuple[str, ...]
    new: tuple[str, ...]


_UP = re.compile(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)")
_ADDED = re.compile(r"\.(?:(?:conv2|proj_out)\.(?:weight|bias)|conv_shortcut\.bias)$")
_OUTLET = re.compile(r"controlnet_down_blocks\.(\d+)\.(weight|bias)")
_UPSAMPLER = re.compile(r"up_blocks\.(\d+)\.(upsamplers\..*)")


def teacher_name(name: str, *, layers: int) -> str:
    """Where a tensor of the student's stands in the teacher.

    The student's first upsampling stage is the teacher's second. Of each upsampling stage's
    layers the first and the last are kept: they are those whose inputs have the same channels.

    Args:
        name: In the student.
        layers: `layers_per_block` of the teacher.
    """
    if found := _UP.fullmatch(name):
        stage, kind, layer, rest = found.groups()
        place = 0 if layer == "0" else layers
        return f"up_blocks.{int(stage) + 1}.{kind}.{place}.{rest}"
    if found := _UPSAMPLER.fullmatch(name):
        return f"up_blocks.{int(found[1]) + 1}.{found[2]}"
    return name


def inherit(student: nn.Module, teacher: Mapping[str, Tensor], *, layers: int) -> Inheritance:
    """Copies into the student what the teacher has for it.

    Args:
        student: A U-Net of `student_config`'s layout.
        teacher: The teacher's tensors by name.
        layers: `layers_per_block` of the teacher.
    """
    return _copied(student, teacher, lambda name: teacher_name(name, layers=layers))


def inherit_control(small: Any, original: Mapping[str, Tensor], *, layers: int) -> Inheritance:
    """Copies into a small ControlNet what the original has for it.

    It is the U-Net's first half over again, so that names match as in `inherit`; but the outlets
    are numbered through, one for each layer: the first convolution's, then of each stage its
    layers' and its downsampler's. Of a stage's layers the student's U-Net keeps the last one's
    place in the skip connections, and so does the ControlNet.

    Args:
        small: A ControlNet for a U-Net of `student_config`'s layout.
        original: The original's tensors by name.
        layers: `layers_per_block` of the original.
    """
    mine = int(small.config.layers_per_block)
    return _copied(small, original, lambda name: _outlet_name(name, mine=mine, layers=layers))


def _copied(
    small: nn.Module, large: Mapping[str, Tensor], named: Callable[[str], str]
) -> Inheritance:
    """Copies each tensor that the large network has, in the same shape, under the name given."""
    taken, new = [], []
    with torch.no_grad():
        for name, tensor in small.state_dict().items():
            source = large.get(named(name))
            if source is not None and source.shape == tensor.shape:
                tensor.copy_(source)
                taken.append(name)
            else:
                new.append(name)
    return Inheritance(tuple(taken), (), tuple(new))


def _outlet_name(name: str, *, mine: int, layers: int) -> str:
    found = _OUTLET.fullmatch(name)
    if found is None or found[1] == "0":
        return name
    stage, place = divmod(int(found[1]) - 1, mine + 1)
    # Counted from the stage's end: its downsampler's is the last.
    index = 1 + stage * (layers + 1) + layers - (mine - place)
    return f"controlnet_down_blocks.{index}.{found[2]}"


def endow(teacher: nn.Module, student: Mapping[str, Tensor], *, layers: int) -> Inheritance:
    """The other way round: gives a large network what a small one has learnt.

    Tensors that are larger in the teacher along the second axis (more input channels) get the
    student's as their first part, and nought beyond it. Everything that the student lacks and
    that adds to something else starts at nought, so that the large network begins near the small.

    Args:
        teacher: A U-Net.
        student: Tensors by name of a U-Net of its `student_config`.
        layers: `layers_per_block` of the teacher.
    """
    places = {teacher_name(name, layers=layers): tensor for name, tensor in student.items()}
    taken, widened, new = [], [], []
    with torch.no_grad():
        for name, tensor in teacher.state_dict().items():
            source = places.get(name)
            if source is None:
                new.append(name)
                if _ADDED.search(name):
                    tensor.zero_()
                elif name.endswith("conv_shortcut.weight"):
                    # The way around the new layer: the sample passes, the skip connection waits.
                    tensor.zero_()
                    out = tensor.shape[0]
                    tensor[:, :out, 0, 0].copy_(torch.eye(out)[:, : tensor.shape[1]])
            elif source.shape == tensor.shape:
                tensor.copy_(source)
                taken.append(name)
            elif source.shape[0] == tensor.shape[0] and source.shape[1] < tensor.shape[1]:
                tensor.zero_()
                tensor[:, : source.shape[1]].copy_(source)
                widened.append(name)
            else:
                new.append(name)
    return Inheritance(tuple(taken), tuple(widened), tuple(new))


def outlets(unet: Any) -> list[nn.Module]:
    """The last layer of each stage that a student would keep, whose outputs L_FKD compares.

    Down from the highest resolution, then up. Taken before a stage changes the resolution, so
    that teacher and student fit each other.
    """
    kept = len(unet.config.block_out_channels)
    if unet.mid_block is not None:
        kept -= 1
    down, up = list(unet.down_blocks)[:kept], list(unet.up_blocks)[-kept:]
    return [_last(block) for block in (*down, *up)]


def _last(block: Any) -> nn.Module:
    attentions = getattr(block, "attentions", None)
    layer: nn.Module = attentions[-1] if attentions else block.resnets[-1]
    return layer


class Listening:
    """Keeps what modules put out while the context is open: float NCHW each, in `heard`."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self._modules = modules
        self.heard: list[Tensor] = []

    def __enter__(self) -> Listening:
        self.heard = []
        self._hooks = [module.register_forward_hook(self._hear) for module in self._modules]
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hear(self, module: nn.Module, inputs: object, output: Any) -> None:
        first = output if isinstance(output, Tensor) else output[0]
        self.heard.append(first)
