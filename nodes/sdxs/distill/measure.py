"""How good a model is, on photographs that it was never trained on.

`python -m nodes.sdxs.distill.measure [FOLDER] [--sheet FILE.png]` prints a table, and draws
source, model and operator one below the other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nodes.sdxs.distill.pictures import HELD_OUT, held_out
from nodes.sdxs.engine import OneStep
from nodes.sdxs.styles import OPERATORS

Bytes = NDArray[np.uint8]


def likeness(one: Bytes, other: Bytes) -> float:
    """Structural similarity (Wang et al., 2004) of two RGB pictures, at most 1."""
    import skimage.metrics

    measure: Any = skimage.metrics.structural_similarity
    return float(measure(one, other, channel_axis=2))


def edges(one: Bytes, other: Bytes) -> float:
    """Correlation of the Laplacians of two RGB pictures: blur or a missing line lowers it."""
    fine = [
        cv2.Laplacian(cv2.GaussianBlur(picture.mean(axis=2), (0, 0), 0.8), cv2.CV_64F).ravel()
        for picture in (one, other)
    ]
    return float(np.corrcoef(fine[0], fine[1])[0, 1])


def restlessness(engine: OneStep, source: Bytes, *, sigma: float = 2.0) -> float:
    """How much of a sensor's noise is left in the output of a still picture: 1 is all of it.

    Mean absolute difference of two outputs whose inputs differ in noise of deviation `sigma` grey
    levels alone, over that of the inputs.
    """
    rng = np.random.default_rng(0)
    noisy = [
        np.clip(np.rint(source + rng.normal(0, sigma, source.shape)), 0, 255).astype(np.uint8)
        for _ in range(2)
    ]
    before = np.abs(noisy[0].astype(int) - noisy[1]).mean()
    after = np.abs(engine(noisy[0]).astype(int) - engine(noisy[1])).mean()
    return float(after / before)


def swimming(engine: OneStep, source: Bytes, *, shift: int = 1) -> float:
    """Mean absolute difference in grey levels between moved output and output of the moved.

    The picture is moved by `shift` pixels to the side and down; borders are left out. The grain
    of the paper does not move, and counts here.
    """
    step, border = engine.multiple, 24
    still = engine(np.ascontiguousarray(source[step:, step:]))
    moved = engine(np.ascontiguousarray(source[step - shift : -shift, step - shift : -shift]))
    back = moved[shift:, shift:][border:-border, border:-border].astype(int)
    return float(np.abs(back - still[:-shift, :-shift][border:-border, border:-border]).mean())


def milliseconds(engine: OneStep, side: int, *, rounds: int = 30) -> float:
    """The median time of one picture of `side` × `side`."""
    picture = held_out(HELD_OUT[0], size=side)
    out = np.empty_like(picture)
    engine.warm_up(side, side)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        engine(picture, out)
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def sheet(engine: OneStep, size: int = 256) -> Bytes:
    """Rows of source and styles, for each held-out photograph the model's and the operators'."""
    rows = []
    for name in HELD_OUT:
        source = held_out(name, size=size)
        painted = []
        for style in engine.prompts:
            engine.prompt = style
            painted.append(engine(source))
        rows.append(np.hstack([source, *painted]))
        rows.append(np.hstack([source, *(OPERATORS[style](source) for style in engine.prompts)]))
    return np.vstack(rows)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m nodes.sdxs.distill.measure")
    parser.add_argument("model", nargs="?", default="bundled")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--sheet", type=Path, help="draw the pictures there")
    arguments = parser.parse_args()
    start = time.perf_counter()
    engine = OneStep.load(
        arguments.model,
        backend=arguments.backend,
        dtype=arguments.dtype,
        threads=arguments.threads,
    )
    engine.warm_up(*engine.native_size)
    print(f"{engine!r}: ready in {time.perf_counter() - start:.2f} s")
    for side in (256, 512):
        print(f"{side} × {side}: {milliseconds(engine, side):.1f} ms a picture")
    print("| Style | Likeness (SSIM) | Edges (correlation) | Noise left | Moved by 1 pixel |")
    print("|---|---|---|---|---|")
    sources = [held_out(name, size=256) for name in HELD_OUT]
    for style in engine.prompts:
        engine.prompt = style
        pairs = [(engine(source), OPERATORS[style](source)) for source in sources]
        print(
            f"| {style} | {np.mean([likeness(*pair) for pair in pairs]):.2f} "
            f"| {np.mean([edges(*pair) for pair in pairs]):.2f} "
            f"| {np.mean([restlessness(engine, source) for source in sources]):.2f} "
            f"| {np.mean([swimming(engine, source) for source in sources]):.1f} |"
        )
    if arguments.sheet:
        cv2.imwrite(str(arguments.sheet), sheet(engine)[:, :, ::-1])


if __name__ == "__main__":
    main()
