"""Where pictures are painted: in host memory, or on the GPU that frames lie on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import streamer

if TYPE_CHECKING:
    import torch

    from nodes.sdxs.engine import OneStep
    from nodes.sdxs.steady import Outcome, Steady

T = TypeVar("T")


def chosen(device: str, gpu: int | None) -> str:
    """The device of torch's that a parameter `device` means.

    Args:
        device: `auto`, or the name itself.
        gpu: of the node, None where it has none.
    """
    if device != "auto":
        return device
    return "cpu" if gpu is None or _simulated() else f"cuda:{gpu}"


def place_of(device: str) -> torch.device:
    """The device that torch means by a name.

    Raises:
        ValueError: it is none, or torch sees no such GPU here.
    """
    import torch

    try:
        place = torch.device(device)
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}, as in cpu or cuda:0") from None
    if place.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (place.index or 0) >= count:
            seen = "no NVIDIA GPU" if count == 0 else f"{count} GPU{'s' * (count > 1)}"
            raise ValueError(f"device {device} cannot be used: torch sees {seen} here")
    return place


def paint(steady: Steady, frame: streamer.Frame, out: streamer.Frame) -> Outcome:
    """Paints one frame from another, wherever they lie.

    With both the model and `out` on one GPU nothing comes down from it, and the host does not wait.

    Raises:
        Exception: as `Steady` does.
    """
    if out.memory == "host":
        return steady(frame.numpy(), out=out.numpy())
    if _on_tensors(steady.engine, out):
        return run_on(out, lambda made, image: steady(image, out=made), frame)
    import numpy as np

    made = np.empty((frame.height, frame.width, 3), np.uint8)
    outcome = steady(frame.numpy(), out=made)
    out.write(made)
    return outcome


def run_on(out: streamer.Frame, function: Callable[..., T], *frames: streamer.Frame) -> T:
    """Calls a function with tensors of frames on a GPU, on this thread's stream.

    On a simulated GPU the work is put into the simulated stream, which sees wrong orders, and the
    function gets tensors of the host there; as what it returns is wanted, it is waited for.

    Args:
        out: on the GPU; the function writes to it.
        function: gets a tensor of `out`, and one of each of `frames`; keeps none of them.
        frames: on the GPU, or in host memory, from where they are brought up.
    """
    target = out.torch()
    if not hasattr(target, "compute"):
        return function(target, *[_tensor(one) for one in frames])
    returned: list[T] = []
    raised: list[BaseException] = []

    def work(*arrays: Any) -> Any:
        import torch

        made = torch.zeros(target.shape, dtype=torch.uint8)
        try:
            returned.append(function(made, *[torch.from_numpy(one.copy()) for one in arrays]))
        except BaseException as error:
            raised.append(error)
        return made.numpy()

    target.compute(work, *[one.cupy() for one in frames])
    target.device.stream_synchronize(target.stream)
    if raised:
        raise raised.pop()
    return returned.pop()


def _tensor(frame: streamer.Frame) -> Any:
    if frame.memory == "cuda":
        return frame.torch()
    import torch

    convert: Any = torch.from_dlpack  # type: ignore[attr-defined]
    return convert(frame.cupy())


def _on_tensors(engine: OneStep, out: streamer.Frame) -> bool:
    if not engine.takes_tensors or _simulated():
        return engine.takes_tensors
    if not engine.device.startswith("cuda"):
        return False
    import torch

    index = place_of(engine.device).index
    its = torch.cuda.current_device() if index is None else index
    return bool(out.torch().device.index == its)  # else the host is the way from one to the other


def _simulated() -> bool:
    return bool(os.environ.get("STREAMER_SIMULATED_GPU"))
