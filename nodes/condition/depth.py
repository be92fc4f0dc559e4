"""Depth by a model that the user provides: a folder in transformers' layout, read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Self

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nodes.condition.depth_folder import check_folder

NEAR_IS_LARGE: Final = {"dpt": True, "depth_anything": True, "glpn": False, "zoedepth": False}
"""Types of models that are known, and whether they predict inverse depth (near is large)."""

_PRECISIONS: Final = (torch.float32, torch.float16, torch.bfloat16)


class Depth:
    """Relative depth: white is near, black is far.

    A model's numbers have no common scale, so each picture is stretched from its farthest to its
    nearest point. These two follow the picture slowly (a tenth of the way each time), so that
    something that comes close does not make the rest flicker.

    Args:
        model: a depth estimator of transformers, ready for use.
        size: height and width in pixels that it takes, before shape and multiple are minded; None
            for the picture's own, which are rounded down to the multiple.
        keep_shape: scale both sides alike, by the factor that is nearer to 1.
        multiple: both sides become multiples of it.
        mean: of each channel, subtracted from pictures from 0 to 1.
        deviation: of each channel, by which they are divided.
        near_is_large: whether it predicts inverse depth.
    """

    FOLLOW: Final = 0.1

    def __init__(
        self,
        model: Any,
        *,
        size: tuple[int, int] | None,
        keep_shape: bool,
        multiple: int,
        mean: tuple[float, ...],
        deviation: tuple[float, ...],
        near_is_large: bool,
    ) -> None:
        parameter = next(model.parameters())
        self._model = model
        self._size = size
        self._keep_shape = keep_shape
        self._multiple = multiple
        self._mean = torch.tensor(mean, device=parameter.device).reshape(1, -1, 1, 1)
        self._deviation = torch.tensor(deviation, device=parameter.device).reshape(1, -1, 1, 1)
        self._near_is_large = near_is_large
        self._dtype = parameter.dtype
        # Farthest and nearest so far, and whether there is a so far.
        self._range = torch.zeros(2, device=parameter.device)
        self._begun = torch.zeros((), device=parameter.device)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Reads a model from a folder; nothing is downloaded.

        Args:
            folder: with `config.json`, `preprocessor_config.json` and `.safetensors` files, as
                transformers' `save_pretrained` writes them.
            device: where it shall run.
            dtype: arithmetic: float32, float16 or bfloat16.

        Raises:
            FileNotFoundError: the folder, or a file of it, is not there.
            ValueError: it holds another kind of model, or its weights do not fit it.
        """
        if dtype not in _PRECISIONS:
            raise ValueError(f"a depth model runs in float32, float16 or bfloat16, not {dtype}")
        path = check_folder(folder)
        config, images = _read(path, "config.json"), _read(path, "preprocessor_config.json")
        kind = config.get("model_type")
        if kind not in NEAR_IS_LARGE:
            raise ValueError(
                f"{path} holds a model of type {kind!r}; known depth models are "
                f"{', '.join(NEAR_IS_LARGE)}"
            )
        near_is_large = NEAR_IS_LARGE[kind] and config.get("depth_estimation_type") != "metric"
        size = _size(images, path)
        made = cls(
            _load(path, device=device, dtype=dtype),
            size=size,
            keep_shape=bool(images.get("keep_aspect_ratio", False)),
            # A divisor beside a size is for padding, which is not done here.
            multiple=int(images.get("size_divisor" if size is None else "ensure_multiple_of", 1)),
            mean=_channels(images, "image_mean", path),
            deviation=_channels(images, "image_std", path),
            near_is_large=near_is_large,
        )
        try:
            made._predicted(torch.zeros(1, 3, 120, 160, device=device))
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"the depth model in {path} cannot take pictures of the sizes that its "
                f"preprocessor_config.json asks for: {reason}"
            ) from error
        return made

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Depth of pictures.

        Args:
            pixels: shape (N, 3, H, W) or (N, 1, H, W); uint8, or floating point from 0 to 1.

        Returns:
            float32 of shape (N, 1, H, W), 0 (far) to 255 (near), not rounded.
        """
        image = pixels.float() / 255.0 if pixels.dtype == torch.uint8 else pixels.float()
        whole = self._predicted(image.expand(-1, 3, -1, -1))
        if not self._near_is_large:
            whole = -whole
        far, near = self._follow(torch.stack([whole.amin(), whole.amax()])).unbind()
        # A picture without any depth is far all over.
        span = torch.clamp(near - far, min=1e-12)
        return (255.0 * (whole - far) / span).clamp(0.0, 255.0)

    @torch.no_grad()
    def _predicted(self, image: Tensor) -> Tensor:
        """The model's numbers for pictures from 0 to 1 of three channels, in their size."""
        height, width = image.shape[2:]
        size = self._input_size(height, width)
        small = F.interpolate(image, size=size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
        seen = ((small - self._mean) / self._deviation).to(self._dtype)
        predicted = self._model(pixel_values=seen).predicted_depth.float()[:, None]
        return F.interpolate(predicted, size=(height, width), mode="bicubic")

    def _follow(self, extremes: Tensor) -> Tensor:
        rate = 1.0 - self._begun * (1.0 - self.FOLLOW)
        self._range.add_(rate * (extremes - self._range))
        self._begun.fill_(1.0)
        return self._range

    def _input_size(self, height: int, width: int) -> tuple[int, int]:
        step = self._multiple
        if self._size is None:  # as transformers' GLPNImageProcessor computes it
            return max(step, height // step * step), max(step, width // step * step)
        # As transformers' DPTImageProcessor computes it.
        tall, wide = self._size[0] / height, self._size[1] / width
        if self._keep_shape:
            tall = wide = wide if abs(1 - wide) < abs(1 - tall) else tall
        return (
            max(step, round(tall * height / step) * step),
            max(step, round(wide * width / step) * step),
        )


def _load(path: Path, *, device: torch.device | str, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForDepthEstimation
    from transformers.utils import logging

    bars: Any = logging  # without types
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        model, found = AutoModelForDepthEstimation.from_pretrained(
            str(path),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below, with the missing ones
            dtype=dtype,
        )
    except Exception as error:  # transformers and safetensors raise many kinds
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"the depth model in {path} cannot be read: {reason}") from error
    finally:
        if shown:
            bars.enable_progress_bar()
    for words, key in (
        ("are missing", "missing_keys"),
        ("are not of this model", "unexpected_keys"),
        ("have the wrong shape", "mismatched_keys"),
    ):
        names = sorted(one if isinstance(one, str) else str(one[0]) for one in found[key])
        if names:
            first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise ValueError(f"the depth model in {path}: {len(names)} tensors {words} ({first})")
    return model.to(device).eval().requires_grad_(False)


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((path / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path / name} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path / name} holds no JSON object")
    return found


def _size(images: dict[str, Any], path: Path) -> tuple[int, int] | None:
    size = images.get("size")
    if size is None and images.get("size_divisor"):
        return None
    try:
        if isinstance(size, dict):
            sides = int(size["height"]), int(size["width"])
        else:
            sides = (int(size), int(size))  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError):
        sides = (0, 0)
    if not all(16 <= side <= 4096 for side in sides):
        raise ValueError(
            f"{path / 'preprocessor_config.json'}: size is height and width of 16 to 4096 pixels, "
            f"not {size!r}"
        )
    return sides


def _channels(images: dict[str, Any], key: str, path: Path) -> tuple[float, ...]:
    normalised = images.get("do_normalize", images.get("size") is not None)
    if not normalised:
        return (0.0,) * 3 if key == "image_mean" else (1.0,) * 3
    found = images.get(key)
    if (
        not isinstance(found, list)
        or len(found) != 3
        or not all(isinstance(one, int | float) for one in found)
    ):
        raise ValueError(
            f"{path / 'preprocessor_config.json'}: {key} is three numbers, not {found!r}"
        )
    return tuple(float(one) for one in found)
