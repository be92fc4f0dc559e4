"""Training pictures: dead leaves made here, and a few photographs that are free to use.

Dead leaves (random overlapping textured shapes whose sizes follow a power law) share the edge and
size statistics of photographs: Lee, Mumford and Huang, "Occlusion models for natural images",
2001. Networks trained on them come close to ones trained on photographs: Baradad et al.,
"Learning to See by Looking at Noise", 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Picture: TypeAlias = NDArray[np.uint8]

HELD_OUT = ("astronaut", "coffee", "chelsea")
"""Photographs of scikit-image that are never trained on: the quality is measured on them."""

TRAINED_ON = (
    "brick",
    "camera",
    "clock",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "retina",
    "rocket",
)
"""Photographs of scikit-image that are trained on; licences in the model card."""

TRAINED_ON_SKLEARN = ("china.jpg", "flower.jpg")
"""Photographs of scikit-learn that are trained on; licences in the model card."""

SHOWN = ("china.jpg", "rocket")
"""Photographs of the sample grids; they are trained on, and say nothing of quality."""

# Photographs of scenes, drawn more often than close-ups of one texture.
SCENES = ("china.jpg", "flower.jpg", "rocket", "camera", "coins")


def photographs() -> dict[str, Picture]:
    """Every photograph that is trained on, RGB, by name.

    Raises:
        ValueError: The packages that they come with are not installed.
    """
    try:
        import skimage.data
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise ValueError(
            f"the photographs come with scikit-image and scikit-learn ({error}): "
            "pip install '.[train]'"
        ) from error

    found = {name: np.asarray(getattr(skimage.data, name)()) for name in TRAINED_ON}
    found |= {name: np.asarray(load_sample_image(name)) for name in TRAINED_ON_SKLEARN}
    return {name: _rgb(picture) for name, picture in found.items()}


def held_out(name: str, *, size: int) -> Picture:
    """A held-out photograph, its centre square scaled to `size` × `size`, uint8 RGB."""
    import skimage.data

    if name not in HELD_OUT:
        raise ValueError(f"{name!r} is not held out; held out are {', '.join(HELD_OUT)}")
    return square(_rgb(np.asarray(getattr(skimage.data, name)())), size=size)


def square(picture: Picture, *, size: int) -> Picture:
    """The centre square of a picture, scaled to `size` × `size`."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    centre = picture[top : top + side, left : left + side]
    return np.asarray(cv2.resize(centre, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def photograph_crop(rng: np.random.Generator, photos: dict[str, Picture], *, size: int) -> Picture:
    """A random view of a random photograph: place, zoom, tilt, mirror, light and colour."""
    names: Sequence[str] = SCENES if rng.random() < 0.75 else tuple(photos)
    picture = photos[str(rng.choice(names))]
    height, width = picture.shape[:2]
    side = min(height, width) * rng.uniform(0.3, 1.0)
    x = rng.uniform(0, width - side) + side / 2
    y = rng.uniform(0, height - side) + side / 2
    scale = size / side
    turn = cv2.getRotationMatrix2D((x, y), rng.normal(0, 8), scale)
    turn[:, 2] += np.array([size / 2 - x, size / 2 - y])
    if scale < 1:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.4 / scale), np.uint8)
    view = cv2.warpAffine(
        picture, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    if rng.random() < 0.5:
        view = view[:, ::-1]
    return _relight(rng, _float(view) / np.float32(255))


def dead_leaves(rng: np.random.Generator, *, size: int) -> Picture:
    """A made-up scene: leaves in front of a backdrop, thin things, lettering, uneven light."""
    canvas = _fill(rng, (size, size), _colour(rng))
    smallest, largest = 3.0, size * 0.55
    count = int(rng.integers(15, 160))
    # Radii with density r^-3 between the two bounds, by inverting the distribution.
    part = rng.random(count)
    radii = smallest / np.sqrt(1 - part * (1 - (smallest / largest) ** 2))
    # Large ones mostly behind, so that small ones stay visible.
    order = np.argsort(-radii * rng.uniform(0.4, 1.6, count))
    for radius in radii[order] * rng.uniform(1.0, 3.0):
        canvas = _leaf(rng, canvas, float(radius))
    for _ in range(int(rng.poisson(3))):
        _thin(rng, canvas)
    if rng.random() < 0.25:
        _letters(rng, canvas)
    if rng.random() < 0.5:
        canvas = _float(cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.6)))
    light = cv2.resize(
        rng.normal(1.0, 0.22, (3, 3)).astype(np.float32),
        (size, size),
        interpolation=cv2.INTER_CUBIC,
    )
    return _relight(rng, _float(np.clip(canvas * light[:, :, None], 0, 1)))


def _float(array: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(array, np.float32)


def _rgb(picture: NDArray[np.uint8]) -> Picture:
    if picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, axis=2)
    return np.ascontiguousarray(picture[:, :, :3], np.uint8)


def _relight(rng: np.random.Generator, picture: NDArray[np.float32]) -> Picture:
    picture = _float(np.clip(picture, 0, 1) ** np.exp(rng.normal(0, 0.25)))
    grey = picture.mean(axis=2, keepdims=True)
    picture = _float(grey + (picture - grey) * rng.uniform(0.5, 1.5))
    picture = _float(picture * (1 + rng.normal(0, 0.07, 3)) * rng.uniform(0.75, 1.15))
    if rng.random() < 0.3:
        low = rng.uniform(0, 0.2)
        picture = low + picture * (1 - low - rng.uniform(0, 0.2))
    if rng.random() < 0.05:
        picture = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator) -> NDArray[np.float32]:
    hue = rng.uniform(0, 360) if rng.random() < 0.6 else rng.normal(28, 14) % 360
    saturation = rng.beta(1.2, 2.2) if rng.random() < 0.85 else rng.uniform(0.6, 1)
    value = rng.beta(1.3, 1.1)
    swatch = np.array([[[hue, saturation, value]]], np.float32)
    return np.asarray(cv2.cvtColor(swatch, cv2.COLOR_HSV2RGB)[0, 0], np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, int], slope: float) -> NDArray[np.float32]:
    """Noise whose spectrum falls with the frequency to the power of `slope`; deviation 1."""
    fy = np.fft.fftfreq(shape[0])[:, None]
    fx = np.fft.rfftfreq(shape[1])[None, :]
    reach = np.maximum(np.hypot(fy, fx), 1 / max(shape))
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) / reach**slope
    plane = np.fft.irfft2(spectrum, s=shape)
    return _float((plane - plane.mean()) / (plane.std() + 1e-6))


def _fill(
    rng: np.random.Generator, shape: tuple[int, int], colour: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Paint for one leaf: plain, shaded, grainy, striped or mixed from two colours."""
    height, width = shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    area = np.broadcast_to(colour, (height, width, 3)).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    across = columns * np.cos(angle) + rows * np.sin(angle)
    kind = rng.random()
    if kind < 0.3:
        mix = _noise(rng, shape, rng.uniform(0.6, 1.8))
        part = 1 / (1 + np.exp(-mix * rng.uniform(0.5, 5)))
        area = area + (_colour(rng) - area) * part[:, :, None] * rng.uniform(0.2, 1)
    elif kind < 0.45:
        period = rng.uniform(4, 40)
        wave = np.sin(across * 2 * np.pi / period + _noise(rng, shape, 1.6) * rng.uniform(0, 1.5))
        part = 1 / (1 + np.exp(-wave * rng.uniform(1, 12)))
        area = area + (_colour(rng) - area) * part[:, :, None]
    if rng.random() < 0.75:
        span = max(float(np.ptp(across)), 1.0)
        ramp = (across - across.mean()) / span
        area = area * (1 + rng.normal(0, 0.6) * ramp)[:, :, None]
    if rng.random() < 0.5:
        grain = _noise(rng, shape, rng.uniform(0.2, 1.2))
        area = area * (1 + rng.exponential(0.06) * grain)[:, :, None]
    return np.ascontiguousarray(np.clip(area, 0, 1), np.float32)


def _leaf(
    rng: np.random.Generator, canvas: NDArray[np.float32], radius: float
) -> NDArray[np.float32]:
    size = canvas.shape[0]
    x, y = rng.uniform(-0.1 * size, 1.1 * size, 2)
    reach = int(radius * 1.6) + 4
    left, top = max(int(x) - reach, 0), max(int(y) - reach, 0)
    right, bottom = min(int(x) + reach, size), min(int(y) + reach, size)
    if right - left < 3 or bottom - top < 3:
        return canvas
    mask = np.zeros((bottom - top, right - left), np.uint8)
    outline = _outline(rng, radius) + np.array([x - left, y - top])
    cv2.fillPoly(mask, [np.rint(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    alpha = _float(mask) / np.float32(255)
    if rng.random() < 0.25:
        alpha = _float(cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.5, 3)))
    area = canvas[top:bottom, left:right]
    if radius > 8 and rng.random() < 0.35:
        # A cast shadow: most edges of a photograph come with one.
        shift = np.array([[1, 0, rng.normal(0, 3)], [0, 1, rng.normal(0, 3)]], np.float32)
        shade = cv2.warpAffine(alpha, shift, (right - left, bottom - top))
        shade = cv2.GaussianBlur(shade, (0, 0), rng.uniform(1, 5))
        area = area * (1 - rng.uniform(0.2, 0.7) * shade)[:, :, None]
    paint = _fill(rng, (bottom - top, right - left), _colour(rng))
    if radius > 6 and rng.random() < 0.4:
        # Round: lit from one side, by the distance from the border.
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
        paint = paint * np.clip(0.55 + 0.6 * depth / (depth.max() + 1e-3), 0, 1.2)[:, :, None]
    canvas[top:bottom, left:right] = area + (paint - area) * alpha[:, :, None]
    return canvas


def _outline(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    kind = rng.random()
    if kind < 0.55:
        turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        wobble = np.ones_like(turns)
        if kind < 0.3:
            for order in range(2, 6):
                wobble += rng.normal(0, 0.25 / order) * np.cos(order * turns + rng.uniform(0, 7))
        points = np.stack([np.cos(turns), np.sin(turns)], axis=1) * wobble[:, None]
    elif kind < 0.8:
        points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    else:
        turns = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
        points = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    points = points * np.array([1.0, np.exp(rng.normal(0, 0.5))]).clip(0.2, 1.4)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(points @ turn.T * radius, np.float64)


def _thin(rng: np.random.Generator, canvas: NDArray[np.float32]) -> None:
    size = canvas.shape[0]
    start = rng.uniform(0, size, 2)
    bend = np.cumsum(rng.normal(0, 0.25, 24)) + rng.uniform(0, 2 * np.pi)
    stride = rng.uniform(1, size / 16)
    path = start + np.cumsum(np.stack([np.cos(bend), np.sin(bend)], axis=1) * stride, axis=0)
    colour = tuple(float(part) for part in _colour(rng))
    cv2.polylines(
        canvas,
        [np.rint(path * 16).astype(np.int32)],
        False,
        colour,
        int(rng.integers(1, 5)),
        cv2.LINE_AA,
        4,
    )


def _letters(rng: np.random.Generator, canvas: NDArray[np.float32]) -> None:
    size = canvas.shape[0]
    text = "".join(chr(int(code)) for code in rng.integers(48, 91, int(rng.integers(2, 9))))
    place = (int(rng.uniform(0, size * 0.6)), int(rng.uniform(size * 0.1, size)))
    colour = tuple(float(part) for part in _colour(rng))
    # A picture of 8 bits, because lettering is drawn smooth only there.
    letters = np.zeros(canvas.shape[:2], np.uint8)
    cv2.putText(
        letters,
        text,
        place,
        int(rng.integers(0, 5)),
        rng.uniform(0.5, 2.5),
        255,
        int(rng.integers(1, 4)),
        cv2.LINE_AA,
    )
    alpha = letters.astype(np.float32)[:, :, None] / 255
    canvas += (np.asarray(colour, np.float32) - canvas) * alpha
