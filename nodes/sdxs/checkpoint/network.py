"""The networks of a checkpoint as one step on torch: no pipeline, no scheduler, no loop.

Every function takes and gives tensors, on one device and without looking at their values, so that
what lies between two of them (a latent, a residual) can be changed, and the whole can be captured.
The blocks are diffusers' own; what is left out of its `forward` is what a one-step model has not:
classes, guidance embeddings, adapters, attention masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nodes.sdxs.checkpoint import attention, lean
from nodes.sdxs.checkpoint.schedule import Step
from nodes.sdxs.checkpoint.text import Embedding

CONTROL_SHRINK = 8
"""Pixels of a control picture to one element of the latent, along a side; in every ControlNet."""


@dataclass(frozen=True)
class Condition:
    """What the networks are told of the prompt and the time, ready for one size of picture.

    Attributes:
        tokens: N × 77 × width, N is 1 or the number of pictures.
        time: N × channels, of the U-Net; None where it is the same for all and folded in.
        control_time: The same of each ControlNet.
        kept: Keys and values of the tokens, of the U-Net's layers.
        control_kept: The same of each ControlNet.
    """

    tokens: Tensor
    time: Tensor | None
    control_time: tuple[Tensor | None, ...]
    kept: attention.Kept
    control_kept: tuple[attention.Kept, ...]


class Network:
    """U-Net, ControlNets and decoder of one model.

    It takes the modules over: they are moved, laid out anew, and no longer diffusers' to run.

    Args:
        unet: `UNet2DConditionModel`, filled.
        vae: `AutoencoderTiny` or `AutoencoderKL`, filled.
        controls: `ControlNetModel`s, filled.
        step: Of the model's scheduler.
        device: Where to run.
        dtype: Arithmetic of the networks; the combination of noise and prediction is float32.

    Raises:
        ValueError: The U-Net or a ControlNet has a feature that this engine does not run, or they
            do not fit each other.
    """

    def __init__(
        self,
        unet: Any,
        vae: Any,
        controls: Sequence[Any] = (),
        *,
        step: Step,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        _check_features(unet, "U-Net")
        for control in controls:
            _check_control(control, unet)
        self.step = step
        self.device, self.dtype = device, dtype
        # Convolutions run on channels-last tensors in half the time on a CPU.
        self.unet = _placed(unet, device, dtype)
        self.controls = tuple(_placed(control, device, dtype) for control in controls)
        self.tiny = type(vae).__name__ == "AutoencoderTiny"
        # The large decoder overflows in float16 where its file says so.
        whole = dtype == torch.float16 and not self.tiny and bool(vae.config.force_upcast)
        self.vae_dtype = torch.float32 if whole else dtype
        self.vae = _placed(vae, device, self.vae_dtype)
        self.scaling_factor = float(vae.config.scaling_factor)
        for net in (self.unet, *self.controls):
            if net.config.addition_embed_type is None:
                with torch.no_grad():
                    lean.fold_time(net, self._plain_time(net))
        self._texts = {id(net): attention.install(net) for net in (self.unet, *self.controls)}
        if self.tiny:
            lean.rectify_in_place(self.vae.decoder)
        self.latent_channels = int(unet.config.in_channels)
        self.shrink = _shrink(vae)
        self.pooled_width = _pooled_width(unet)

    def condition(self, embedding: Embedding, *, width: int, height: int) -> Condition:
        """The condition of a prompt for pictures of a size, in pixels.

        The size matters to models in the shape of SDXL alone: they are told the original size, no
        cropping, and the target size, which are all the same here.
        """
        found = embedding.to(self.device, self.dtype)
        return Condition(
            tokens=found.tokens,
            time=self._time(self.unet, found, width, height),
            control_time=tuple(self._time(one, found, width, height) for one in self.controls),
            kept=self.project(self.unet, found),
            control_kept=tuple(self.project(one, found) for one in self.controls),
        )

    def project(self, net: Any, embedding: Embedding) -> attention.Kept:
        """Keys and values of a prompt for the U-Net or one of the ControlNets."""
        return attention.keep(self._texts[id(net)], embedding.tokens)

    def pictures(self, images: Tensor) -> Tensor:
        """Control pictures as ControlNets take them: uint8 NHW3 to N3HW of 0..1."""
        return images.permute(0, 3, 1, 2).to(self.dtype).div(255)

    def model_input(self, noise: Tensor) -> Tensor:
        """What the networks see of the noise: float32 N4HW to N4HW of `dtype`."""
        scaled = noise if self.step.input == 1.0 else noise * self.step.input
        return scaled.to(self.dtype).to(memory_format=torch.channels_last)

    def residuals(
        self, index: int, sample: Tensor, picture: Tensor, condition: Condition
    ) -> list[Tensor]:
        """What a ControlNet adds to the U-Net's skip connections and, last, to its middle.

        Args:
            index: Of the ControlNet.
            sample: From `model_input`.
            picture: From `pictures`.
            condition: From `condition`.
        """
        net = self.controls[index]
        if net.config.controlnet_conditioning_channel_order == "bgr":
            picture = picture.flip(1)
        time, tokens = _broad(condition.control_time[index], condition.tokens, len(sample))
        told = attention.Told(tokens, condition.control_kept[index])
        hidden = net.conv_in(sample) + net.controlnet_cond_embedding(picture)
        hidden, skips = _down(net, hidden, time, told)
        hidden = _middle(net, hidden, time, told)
        found = [block(skip) for block, skip in zip(net.controlnet_down_blocks, skips, strict=True)]
        return [*found, net.controlnet_mid_block(hidden)]

    def predict(
        self, sample: Tensor, condition: Condition, residuals: Sequence[Tensor] = ()
    ) -> Tensor:
        """The U-Net's prediction at the step's time.

        Args:
            sample: From `model_input`.
            condition: From `condition`.
            residuals: From `residuals`, scaled and added up; empty for none.
        """
        unet = self.unet
        time, tokens = _broad(condition.time, condition.tokens, len(sample))
        told = attention.Told(tokens, condition.kept)
        hidden, skips = _down(unet, unet.conv_in(sample), time, told)
        if residuals:
            skips = [skip + more for skip, more in zip(skips, residuals[:-1], strict=True)]
        hidden = _middle(unet, hidden, time, told)
        if residuals:
            # Even where the U-Net has no middle block: the published ControlNet has one.
            hidden = hidden + residuals[-1]
        last = len(unet.up_blocks) - 1
        for number, block in enumerate(unet.up_blocks):
            taken = len(block.resnets)
            skips, own = skips[:-taken], tuple(skips[-taken:])
            # Upsampling doubles; a side that was halved with a remainder asks for its own size.
            size = None if number == last else skips[-1].shape[2:]
            arguments: dict[str, Any] = {"upsample_size": size, "temb": time}
            if getattr(block, "has_cross_attention", False):
                arguments["encoder_hidden_states"] = told
            hidden = block(hidden_states=hidden, res_hidden_states_tuple=own, **arguments)
        if unet.conv_norm_out is not None:
            hidden = unet.conv_act(unet.conv_norm_out(hidden))
        predicted: Tensor = unet.conv_out(hidden)
        return predicted

    def combine(self, noise: Tensor, prediction: Tensor) -> Tensor:
        """The latent, float32: both terms are large and nearly cancel out."""
        return torch.add(
            noise * self.step.noise, prediction.to(torch.float32), alpha=self.step.prediction
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents: float32 N4hw to N3HW of about -1..1, in the decoder's arithmetic."""
        if self.tiny:
            # What `AutoencoderTiny.decode` comes to: its factor is 1, by which it divides.
            scaled = latents if self.scaling_factor == 1.0 else latents / self.scaling_factor
            decoded: Tensor = self.vae.decoder(_laid(scaled, self.vae_dtype))
            return decoded
        scaled = _laid(latents / self.scaling_factor, self.vae_dtype)
        if self.vae.post_quant_conv is not None:
            scaled = self.vae.post_quant_conv(scaled)
        decoded = self.vae.decoder(scaled)
        return decoded

    def levels(self, decoded: Tensor) -> Tensor:
        """Grey levels: N3HW of -1..1 to uint8 NHW3, rounded to the nearest, clipped."""
        scaled = decoded.to(torch.float32).mul(127.5).add_(127.5).round_().clamp_(0, 255)
        return scaled.to(torch.uint8).permute(0, 2, 3, 1)

    def _plain_time(self, net: Any) -> Tensor:
        when = torch.tensor([self.step.timestep], device=self.device)
        # The sine and cosine are computed in float32, whatever the network's arithmetic.
        found: Tensor = net.time_embedding(net.time_proj(when).to(self.dtype))
        return found

    def _time(self, net: Any, embedding: Embedding, width: int, height: int) -> Tensor | None:
        if net.config.addition_embed_type is None:
            return None
        if embedding.pooled is None:
            raise ValueError("the U-Net wants a pooled text embedding, and the model has none")
        sizes = torch.tensor([height, width, 0, 0, height, width], device=self.device)
        times = net.add_time_proj(sizes.to(self.dtype)).reshape(1, -1).to(self.dtype)
        added = torch.cat([embedding.pooled, times.expand(len(embedding.pooled), -1)], dim=-1)
        found: Tensor = self._plain_time(net) + net.add_embedding(added.to(self.dtype))
        return found


def _down(
    net: Any, hidden: Tensor, time: Tensor | None, told: attention.Told
) -> tuple[Tensor, list[Tensor]]:
    skips = [hidden]
    for block in net.down_blocks:
        if getattr(block, "has_cross_attention", False):
            hidden, states = block(hidden_states=hidden, temb=time, encoder_hidden_states=told)
        else:
            hidden, states = block(hidden_states=hidden, temb=time)
        skips += states
    return hidden, skips


def _middle(net: Any, hidden: Tensor, time: Tensor | None, told: attention.Told) -> Tensor:
    if net.mid_block is None:
        return hidden
    if getattr(net.mid_block, "has_cross_attention", False):
        return net.mid_block(hidden, time, encoder_hidden_states=told)  # type: ignore[no-any-return]
    return net.mid_block(hidden, time)  # type: ignore[no-any-return]


def _broad(time: Tensor | None, tokens: Tensor, count: int) -> tuple[Tensor | None, Tensor]:
    if time is not None:
        time = time.expand(count, -1)
    return time, tokens if len(tokens) == count else tokens.expand(count, -1, -1)


def _laid(latents: Tensor, dtype: torch.dtype) -> Tensor:
    return latents.to(dtype).to(memory_format=torch.channels_last)


def _placed(module: Any, device: torch.device, dtype: torch.dtype) -> Any:
    # Not diffusers' own `to`, which warns of modules that must stay in float32: there are none.
    nn.Module.to(module, device=device, dtype=dtype)
    return nn.Module.to(module, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _shrink(vae: Any) -> int:
    """Pixels to one element of the latent, along a side."""
    if type(vae).__name__ == "AutoencoderTiny":
        stages = len(vae.config.decoder_block_out_channels) - 1
        factor: int = vae.config.upsampling_scaling_factor**stages
        return factor
    return 1 << (len(vae.config.block_out_channels) - 1)


def _pooled_width(unet: Any) -> int | None:
    config = unet.config
    if config.addition_embed_type is None:
        return None
    return int(config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim)


def _check_features(net: Any, what: str) -> None:
    config = net.config
    for key, plain in (
        ("center_input_sample", False),
        ("class_embed_type", None),
        ("num_class_embeds", None),
        ("encoder_hid_dim_type", None),
        ("time_cond_proj_dim", None),
        ("time_embedding_act_fn", None),
    ):
        if config.get(key, plain) not in (plain, False):
            raise ValueError(
                f"the {what} has {key} {config[key]!r}, which this one-step engine does not run"
            )
    if config.get("addition_embed_type") not in (None, "text_time"):
        raise ValueError(
            f"the {what} has addition_embed_type {config['addition_embed_type']!r}; "
            "this one-step engine runs none and text_time"
        )


def _check_control(control: Any, unet: Any) -> None:
    _check_features(control, "ControlNet")
    if control.config.get("global_pool_conditions"):
        raise ValueError("the ControlNet has global_pool_conditions, which is not supported")
    for key, what in (
        ("cross_attention_dim", "text of width"),
        ("addition_embed_type", "added embeddings of the kind"),
    ):
        own, wanted = control.config.get(key), unet.config.get(key)
        if own != wanted:
            raise ValueError(
                f"the ControlNet does not fit the model: it takes {what} {own}, the U-Net {wanted}"
            )
    own_widths, wanted_widths = _skip_widths(control), _skip_widths(unet)
    if own_widths != wanted_widths:
        raise ValueError(
            f"the ControlNet does not fit the model: it gives {len(own_widths) + 1} residuals of "
            f"widths {own_widths}, the U-Net takes {len(wanted_widths) + 1} of {wanted_widths}; "
            "SDXS needs ControlNets of its own, those of Stable Diffusion do not fit"
        )


def _skip_widths(net: Any) -> list[int]:
    """Channels of the skip connections, in order."""
    widths = [int(net.conv_in.out_channels)]
    for block in net.down_blocks:
        widths += [int(resnet.out_channels) for resnet in block.resnets]
        widths += [int(one.out_channels) for one in block.downsamplers or ()]
    return widths
