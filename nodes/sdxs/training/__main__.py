"""Trains the bundled model: `python -m nodes.sdxs.training --scratch FOLDER`.

Interrupted runs go on where they stopped. Everything is drawn from seeded generators, so the
pictures and batches are the same each time; the weights differ in their last digits between
machines. About forty minutes on two cores with bfloat16 arithmetic.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nodes.sdxs.network import NOISE_CHANNELS, Network, channels_last
from nodes.sdxs.styles import OPERATORS
from nodes.sdxs.training import targets
from nodes.sdxs.training.data import Batches, prepare
from nodes.sdxs.training.losses import loss

STYLES = tuple(OPERATORS)

SHARES = {"comic": 1.7, "oil": 1.4}
"""How often a style is trained, where it is not 1: these two are learnt most slowly."""


def initialise(network: Network) -> None:
    """He initialisation of the autoencoder; what adds to something else starts near zero.

    The autoencoder has no normalisation: with torch's default it stays at a constant picture.
    """
    for module in network.vae.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, module in network.vae.named_modules():
        # The third convolution of each residual block.
        if isinstance(module, nn.Conv2d) and name.endswith("conv.4"):
            nn.init.normal_(module.weight, std=1e-3)
    nn.init.zeros_(network.unet.conv_out.weight)
    nn.init.zeros_(network.unet.conv_out.bias)


def rate(step: int, *, steps: int, peak: float, warm_up: int = 200) -> float:
    """The learning rate: linear warm-up, then a half cosine down to 2 % of the peak."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    part = min((step - warm_up) / max(steps - warm_up, 1), 1.0)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part)))


class Average:
    """An exponential moving average of the weights: steadier than the last step's."""

    def __init__(self, network: Network, *, decay: float = 0.998) -> None:
        self.decay = decay
        self.weights = {key: value.clone() for key, value in network.state_dict().items()}

    def update(self, network: Network, step: int) -> None:
        """Moves towards the network's weights, faster at the beginning."""
        decay = min(self.decay, (step + 1) / (step + 10))
        for key, value in network.state_dict().items():
            self.weights[key].lerp_(value, 1 - decay)


def train(arguments: argparse.Namespace) -> None:
    """Runs up to the last step, writing a checkpoint now and then."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    pictures = prepare(
        arguments.scratch,
        styles=STYLES,
        count=arguments.pictures,
        size=arguments.size,
        photo_share=0.45,
        workers=arguments.threads,
    )
    network = Network(len(STYLES))
    initialise(network)
    network = channels_last(network)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=arguments.rate, betas=(0.9, 0.98), weight_decay=1e-3
    )
    average = Average(network)
    amounts = torch.tensor([targets.GRAIN.get(style, 0.0) for style in STYLES]).view(-1, 1, 1, 1)
    checkpoint = arguments.scratch / "checkpoint.pt"
    first = 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(kept["network"])
        optimiser.load_state_dict(kept["optimiser"])
        average.weights = kept["average"]
        first = kept["step"]
    batches = Batches(
        pictures,
        shares=[SHARES.get(style, 1.0) for style in STYLES],
        crop=arguments.crop,
        batch=arguments.batch,
    )
    started, window = time.monotonic(), []
    for step in range(first, arguments.steps):
        # One generator a step: a resumed run draws what the uninterrupted one would have drawn.
        source, target, style = (
            torch.from_numpy(part) for part in batches.draw(np.random.default_rng([7, step]))
        )
        generator = torch.Generator().manual_seed(step)
        side = arguments.crop // 4
        noise = torch.randn(len(source), NOISE_CHANNELS, side, side, generator=generator)
        strength = targets.strengths(len(source), generator)
        wanted = targets.textured(target, targets.grain(noise), amounts[style])
        wanted = targets.at_strength(source, wanted, strength)
        seen = targets.disturbed(source, generator).to(memory_format=torch.channels_last)
        for group in optimiser.param_groups:
            group["lr"] = rate(step, steps=arguments.steps, peak=arguments.rate)
        with torch.autocast("cpu", torch.bfloat16, enabled=not arguments.full_precision):
            painted = network.paint(seen, network.tokens[style], noise, strength)
        error = loss(painted.float(), wanted)
        optimiser.zero_grad(set_to_none=True)
        error.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        average.update(network, step)
        window.append((painted.detach().float() - wanted).abs().mean().item())
        done = step + 1
        if done % 50 == 0:
            pace = (time.monotonic() - started) / (done - first)
            left = pace * (arguments.steps - done) / 60
            print(
                f"step {done}: L1 {np.mean(window):.4f}, {pace:.3f} s a step, {left:.0f} min left",
                flush=True,
            )
            window.clear()
        if done % arguments.keep == 0 or done == arguments.steps:
            partial = checkpoint.with_suffix(".partial")
            torch.save(
                {
                    "network": network.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "average": average.weights,
                    "step": done,
                },
                partial,
            )
            partial.replace(checkpoint)


def main() -> None:
    """Reads the arguments, trains, and exports if asked to."""
    parser = argparse.ArgumentParser(prog="python -m nodes.sdxs.training", description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True, help="pictures and checkpoints")
    parser.add_argument("--steps", type=int, default=7600)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=128, help="pixels, a multiple of 16")
    parser.add_argument("--size", type=int, default=192, help="of the pictures, pixels")
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--full-precision", action="store_true", help="no bfloat16")
    parser.add_argument("--export", type=Path, help="write the averaged weights there at the end")
    arguments = parser.parse_args()
    train(arguments)
    if arguments.export:
        from nodes.sdxs.training.export import export

        export(arguments.scratch / "checkpoint.pt", arguments.export)


if __name__ == "__main__":
    main()
