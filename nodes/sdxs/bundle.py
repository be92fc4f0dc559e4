"""A model's folder: its configuration, its weights, and the graph made from them.

    config.json                                   vocabulary and sizes
    vae/, unet/                                   diffusers' configuration and weights
    style/diffusion_pytorch_model.safetensors     tokens and the skip connection
    openvino/model.xml, model.bin, made_from.json the same network for OpenVINO

The graph is kept beside the weights, because converting it needs torch and diffusers, whose
imports alone take longer than a viewer should wait for the first picture.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUNDLED = "bundled"
VAE, UNET, STYLE = (
    f"{part}/diffusion_pytorch_model.safetensors" for part in ("vae", "unet", "style")
)
WEIGHTS = (VAE, UNET, STYLE)
GRAPH = ("openvino/model.xml", "openvino/model.bin")
MADE_FROM = "openvino/made_from.json"
FORMAT = 1


@dataclass(frozen=True)
class Bundle:
    """What `config.json` says.

    Attributes:
        name: As it was asked for.
        folder: Where the files are.
        styles: The vocabulary, in the order of the token table.
        native_size: Width and height in pixels that the model looks best at.
        multiple: Both sides of a picture must be multiples of this.
        noise_channels: Channels of the fixed noise.
        shrink: Pixels per element of the noise, along a side.
    """

    name: str
    folder: Path
    styles: tuple[str, ...]
    native_size: tuple[int, int]
    multiple: int
    noise_channels: int
    shrink: int

    @classmethod
    def open(cls, name: str | Path) -> Bundle:
        """Reads the configuration; instant, loads no weights.

        Args:
            name: `"bundled"`, or a folder in this layout.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: It holds no model of this format.
        """
        folder = Path(__file__).parent / "bundled" if name == BUNDLED else Path(name)
        path = folder / "config.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"no model {str(name)!r}: it is neither {BUNDLED!r} nor a folder with config.json"
            )
        try:
            fields: dict[str, Any] = json.loads(path.read_text())
            if fields["format"] != FORMAT:
                raise ValueError(f"format {fields['format']!r}, only {FORMAT} can be read")
            width, height = fields["native_size"]
            return cls(
                name=str(name),
                folder=folder,
                styles=tuple(str(style) for style in fields["styles"]),
                native_size=(int(width), int(height)),
                multiple=int(fields["multiple"]),
                noise_channels=int(fields["noise_channels"]),
                shrink=int(fields["shrink"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path} does not describe a one-step model: {error}") from error

    def graph_problem(self) -> str | None:
        """Why OpenVINO's graph cannot be used, or None: each file is compared with its hash."""
        try:
            made_from: dict[str, str] = json.loads((self.folder / MADE_FROM).read_text())
            for name in (*WEIGHTS, *GRAPH):
                if digest(self.folder / name) != made_from[name]:
                    return f"{name} has changed since the graph was made"
        except FileNotFoundError as error:
            return f"{error.filename} is missing"
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return f"{MADE_FROM} cannot be read"
        return None


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
