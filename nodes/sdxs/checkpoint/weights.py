"""Weights: read without running anything, and put into a network only if they all fit."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SHOWN = 4
"""How many names of tensors a message gives."""


def read(path: Path) -> dict[str, Tensor]:
    """Tensors of a file by name; safetensors are mapped, pickles are read with weights only.

    Raises:
        ValueError: The file is damaged, or is a pickle of more than tensors.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's version: what fits is read anyway
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle makes the reader fail in any way
        # Torch explains at length how to run what is in the file all the same: that is left out.
        raise ValueError(
            f"{path} is not a file of weights alone: it is damaged, or would run code when it is "
            "read, which is refused; convert it to safetensors where it comes from"
        ) from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds a {type(found).__name__}, not tensors by name")
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if len(tensors) != len(found):
        others = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
        raise ValueError(f"{path} holds more than tensors: {', '.join(others[:SHOWN])}")
    return tensors


def fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    what: str,
    rename: Callable[[str], str] = str,
) -> None:
    """Gives a network on the meta device its weights; every tensor must find its place.

    Args:
        module: On the meta device; takes the tensors themselves, no copies.
        tensors: By name.
        what: The file, for messages.
        rename: From a name in the file to one of the network; an empty name passes a tensor over.

    Raises:
        ValueError: Tensors are missing, unexpected or of another shape; the message names the
            first few and says how many.
    """
    given = {new: tensor for name, tensor in tensors.items() if (new := rename(name))}
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in given]
    unexpected = [name for name in given if name not in wanted]
    misshapen = [
        f"{name} is {_shape(given[name])} instead of {_shape(tensor)}"
        for name, tensor in wanted.items()
        if name in given and given[name].shape != tensor.shape
    ]
    complaints = [
        f"{len(names)} {kind} ({', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''})"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if names
    ]
    if complaints:
        raise ValueError(
            f"the weights in {what} do not fit the configuration beside them: of {len(wanted)} "
            f"tensors {', '.join(complaints)}"
        )
    module.load_state_dict(given, strict=True, assign=True)
    _fill_positions(module)


def fill_random(module: nn.Module, *, name: str, seed: int = 0) -> None:
    """Gives a network on the meta device weights drawn from a seed.

    Each tensor depends on the seed, the network's name and the tensor's own name alone. Their
    size keeps what goes through the network near 1: variance 1/fan-in for weights of two or more
    dimensions, ones for the scales of norms, and zeros for the rest.

    Args:
        module: On the meta device.
        name: Of the network, so that two of one model differ.
        seed: Of all weights.
    """
    drawn: dict[str, Tensor] = {}
    for key, like in module.state_dict().items():
        if like.ndim >= 2:
            digest = hashlib.sha256(f"{seed}/{name}/{key}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
            # A row of CLIP's tables is looked up, not summed over.
            is_table = key.endswith(("token_embedding.weight", "position_embedding.weight"))
            spread = 1 if is_table else math.prod(like.shape[1:])
            tensor = torch.randn(like.shape, generator=generator).div_(math.sqrt(spread))
            if spread > 1:
                # Activations are positive on the whole: without this they would drift away.
                tensor -= tensor.flatten(1).mean(1).reshape(-1, *(1,) * (like.ndim - 1))
        elif key.endswith("weight"):
            tensor = torch.ones(like.shape)
        else:
            tensor = torch.zeros(like.shape)
        drawn[key] = tensor
    module.load_state_dict(drawn, strict=True, assign=True)
    _fill_positions(module)


def _fill_positions(module: nn.Module) -> None:
    """CLIP counts its tokens in a buffer that no file has."""
    for parent in module.modules():
        for name, buffer in list(parent.named_buffers(recurse=False)):
            if not buffer.is_meta:
                continue
            if name != "position_ids":
                raise AssertionError(f"{type(parent).__name__}.{name} was not given a value")
            parent.register_buffer(name, torch.arange(buffer.shape[-1])[None], persistent=False)


def _shape(tensor: Any) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
