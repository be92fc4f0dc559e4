"""From a network to the model's folder, and from the weights in it to OpenVINO's graph.

`python -m nodes.sdxs.distill.export FOLDER` makes the graph anew.
"""

from __future__ import annotations

import argparse
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.jit._trace import TracerWarning

from nodes.sdxs.bundle import FORMAT, GRAPH, MADE_FROM, WEIGHTS, digest
from nodes.sdxs.network import NOISE_CHANNELS, TOKEN_WIDTH, TOKENS, Network

NATIVE_SIZE = (256, 256)
MULTIPLE = 8
SHRINK = 4
# Not a multiple of 16 after shrinking: traced like this, the U-Net's upsampling takes its sizes
# from the layers that it joins, and the graph holds for every multiple of 8.
TRACED_SIDE = 264


def export(network: Network, folder: Path, *, styles: Sequence[str], graph: bool = True) -> None:
    """Writes a network's weights, its configuration and its graph into `folder`.

    Args:
        network: Its token table has one row for each style.
        folder: Made if it is not there; the node and `OneStep.load` take it as a model.
        styles: The vocabulary.
        graph: Whether to make the graph; without it, torch runs the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network.save(folder)
    for part in ("vae", "unet"):
        _tidy(folder / part / "config.json")
    config = {
        "format": FORMAT,
        "styles": list(styles),
        "native_size": list(NATIVE_SIZE),
        "multiple": MULTIPLE,
        "noise_channels": NOISE_CHANNELS,
        "shrink": SHRINK,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if graph:
        make_graph(folder)


def make_graph(folder: Path) -> None:
    """Converts the folder's weights to OpenVINO, any batch and size, weights in half precision."""
    import openvino

    network = Network.load(folder)
    side = TRACED_SIDE
    example = (
        torch.zeros(1, side, side, 3, dtype=torch.uint8),
        torch.zeros(1, TOKENS, TOKEN_WIDTH),
        torch.zeros(1, NOISE_CHANNELS, side // SHRINK, side // SHRINK),
        torch.ones(1, 1, 1, 1),
    )
    with torch.no_grad(), warnings.catch_warnings():
        # diffusers' checks of shapes are traced as constants, and hold for every shape.
        warnings.simplefilter("ignore", TracerWarning)
        graph = openvino.convert_model(network, example_input=example)
    names = ("image", "tokens", "noise", "strength")
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    graph.reshape(
        {
            "image": [-1, -1, -1, 3],
            "tokens": [-1, TOKENS, TOKEN_WIDTH],
            "noise": [-1, NOISE_CHANNELS, -1, -1],
            "strength": [-1, 1, 1, 1],
        }
    )
    path = folder / GRAPH[0]
    path.parent.mkdir(exist_ok=True)
    # The weights were saved in half precision: nothing is lost by keeping them so.
    openvino.save_model(graph, path, compress_to_fp16=True)
    made_from = {name: digest(folder / name) for name in (*WEIGHTS, *GRAPH)}
    made_from["openvino"] = re.split(r"[-+]", openvino.get_version())[0]
    (folder / MADE_FROM).write_text(json.dumps(made_from, indent=2) + "\n")


def _tidy(path: Path) -> None:
    """Takes out what says where the model was made."""
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Reads the arguments and makes the graph."""
    parser = argparse.ArgumentParser(prog="python -m nodes.sdxs.distill.export")
    parser.add_argument("folder", type=Path)
    make_graph(parser.parse_args().folder)


if __name__ == "__main__":
    main()
