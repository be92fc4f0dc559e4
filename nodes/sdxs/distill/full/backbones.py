"""What pictures are compared by in the feature matching (10)."""

from __future__ import annotations

import contextlib
import math
from typing import Any, Protocol

import torch
from torch import Tensor

from nodes.sdxs.checkpoint.text import Embedding
from nodes.sdxs.distill import score
from nodes.sdxs.distill.full.models import Models, added
from nodes.sdxs.distill.removal import Listening, outlets


class Backbone(Protocol):
    """Features of latents and of the pictures that they decode to."""

    def __call__(self, latents: Tensor, text: Embedding) -> list[Tensor]:
        """Float NCHW, from fine to coarse."""
        ...


class _EnoughError(Exception):
    """The last feature has been heard: what comes after it need not be computed."""


class UnetEncoder:
    """The first half of the teacher's U-Net, at little noise; needs no decoder and no download."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._modules = first_half(models.teacher)

    def __call__(self, latents: Tensor, text: Embedding) -> list[Tensor]:
        """See `Backbone`."""
        t = torch.full((len(latents),), score.FIRST, dtype=torch.int64, device=latents.device)
        unet = self._models.teacher
        extra = added(unet, text, pixels=self._models.pixels)
        return heard(unet, self._modules, latents, t, text.tokens, added_cond_kwargs=extra)


def first_half(unet: Any) -> list[torch.nn.Module]:
    """Where the features of a U-Net's first half are: the last layer of each stage."""
    layers = outlets(unet)
    return layers[: len(layers) // 2]


def heard(unet: Any, modules: list[torch.nn.Module], *args: Any, **given: Any) -> list[Tensor]:
    """What modules put out when a U-Net is called; what comes after the last is not computed."""
    # The hook that ends comes after those of `Listening`, so that the last one is heard.
    with Listening(modules) as listening, contextlib.suppress(_EnoughError):
        ending = modules[-1].register_forward_hook(_end)
        try:
            unet(*args, **given)
        finally:
            ending.remove()
    return listening.heard


def _end(module: torch.nn.Module, inputs: object, output: object) -> None:
    raise _EnoughError


class Vision:
    """A vision transformer or CNN of transformers, on the decoded pictures.

    Args:
        models: For the decoder, through which gradients flow.
        network: Of transformers, with hidden states: DINOv2, say.
        size: Of the pictures that it sees.
    """

    _MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, models: Models, network: Any, *, size: int = 224) -> None:
        self._models = models
        self._network = network
        self._size = size

    def __call__(self, latents: Tensor, text: Embedding) -> list[Tensor]:
        """See `Backbone`."""
        vae = self._models.vae
        pictures = vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5
        shown = torch.nn.functional.interpolate(
            pictures, (self._size, self._size), mode="bilinear", antialias=True
        )
        mean, deviation = (
            torch.tensor(values, device=shown.device).view(1, 3, 1, 1)
            for values in (self._MEAN, self._DEVIATION)
        )
        states = self._network(
            pixel_values=(shown - mean) / deviation, output_hidden_states=True
        ).hidden_states
        return [_map(one) for one in states[1:]]


def check(name: str) -> None:
    """Looks whether a backbone is there, before a stage needs it.

    Raises:
        ValueError: It is not.
    """
    if name != "unet":
        _loaded("AutoConfig", name)


def choose(models: Models, name: str) -> Backbone:
    """The backbone that a configuration names: `unet`, or a folder of transformers."""
    if name == "unet":
        return UnetEncoder(models)
    network = _loaded("AutoModel", name)
    return Vision(models, network.to(models.device).eval().requires_grad_(False))


def _loaded(kind: str, name: str) -> Any:
    import transformers

    try:
        return getattr(transformers, kind).from_pretrained(name)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"backbone {name!r} cannot be loaded: it must be 'unet', or a vision model of "
            f"transformers, as a folder or a repository of the hub ({first[:300]})"
        ) from error


def _map(state: Tensor) -> Tensor:
    """Tokens N × L × C as a map; those before the picture's own, as the class token, go."""
    if state.dim() == 4:
        return state
    side = math.isqrt(state.shape[1])
    patches = state[:, -side * side :]
    return patches.transpose(1, 2).reshape(len(state), state.shape[2], side, side)
