"""Other ways to run the same networks, so that each option can earn its place."""

from __future__ import annotations

import copy
import importlib.util
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from nodes.sdxs.bench.rig import WITH_CONTROL, load
from nodes.sdxs.bench.speed import compiler_for, speed
from nodes.sdxs.checkpoint.network import Network
from streamer.bench.acceptance.goals import Conditions, NotAvailable, Outcome

_PARTS: Final = ("residuals", "predict", "decode")


def eager(conditions: Conditions) -> Outcome:
    """The networks as they stand, launched kernel by kernel."""
    return speed(conditions, WITH_CONTROL, at_least=None, capture=False)


def compiled(conditions: Conditions) -> Outcome:
    """Captured, of kernels that torch.compile has made."""
    return speed(conditions, WITH_CONTROL, at_least=None, compiler=compiler_for(conditions))


def contiguous(conditions: Conditions) -> Outcome:
    """Captured, without channels-last: channel by channel in memory, as torch does by itself."""
    engine = load(WITH_CONTROL.under(conditions), conditions)
    channels_first(engine.network)
    return speed(conditions, WITH_CONTROL, at_least=None, engine=engine)


def fp8(conditions: Conditions) -> Outcome:
    """Captured and compiled, with torchao's matrix products of 8-bit floating-point numbers."""
    if importlib.util.find_spec("torchao") is None:
        raise NotAvailable("torchao is not installed")
    if conditions.fake:
        raise NotAvailable("FP8 needs a GPU")
    engine = load(WITH_CONTROL, conditions)
    in_float8(engine.network)
    compiler = compiler_for(conditions)
    return speed(conditions, WITH_CONTROL, at_least=None, compiler=compiler, engine=engine)


def tensorrt(conditions: Conditions) -> Outcome:
    """With TensorRT's engines, by torch.compile's back end of that name."""
    if importlib.util.find_spec("torch_tensorrt") is None:
        raise NotAvailable("torch_tensorrt is not installed")
    if conditions.fake:
        raise NotAvailable("TensorRT needs a GPU")
    import torch_tensorrt  # noqa: F401, which registers the back end

    compiler = partial(by_backend, backend="tensorrt")
    return speed(conditions, WITH_CONTROL, at_least=None, capture=False, compiler=compiler)


def channels_first(network: Network) -> None:
    """Lays a network's weights, and what enters it, out channel by channel; it is changed."""
    nets = (network.unet, *network.controls)
    for module in (*nets, network.vae):
        nn.Module.to(module, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    entries = [net.conv_in for net in nets]
    entries += [control.controlnet_cond_embedding for control in network.controls]
    for module in (*entries, network.vae.decoder):
        # A convolution takes its layout from its input where the two differ.
        module.register_forward_pre_hook(_in_order)


def in_float8(network: Network) -> None:
    """Has a network's linear layers multiply in 8 bits; it is changed."""
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, quantize_

    # One scale for each tensor: by rows it takes bfloat16 only.
    config = Float8DynamicActivationFloat8WeightConfig()
    for net in (network.unet, *network.controls):
        quantize_(net, config)


def by_backend(network: Network, *, backend: str) -> Network:
    """The same network, its parts compiled by a back end of torch.compile's."""
    made = copy.copy(network)
    for part in _PARTS:
        whole: Any = torch.compile(getattr(network, part), backend=backend, dynamic=False)
        setattr(made, part, whole)
    return made


def _in_order(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.contiguous() if isinstance(one, Tensor) else one for one in args)
