"""What runs the network: OpenVINO on processors, torch everywhere."""

from __future__ import annotations

import importlib.util
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nodes.sdxs.bundle import GRAPH, Bundle
from nodes.sdxs.device import place_of

if TYPE_CHECKING:
    from torch import Tensor

    from nodes.sdxs.network import Network

_log = logging.getLogger("nodes.sdxs")

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

KEPT_SIZES = 4
"""Compiled sizes that stay in memory; the one unused for longest goes first."""

BACKENDS = ("auto", "openvino", "torch")
DTYPES = ("auto", "float32", "bfloat16", "float16")


class Backend(Protocol):
    """One network, loaded."""

    name: str
    dtype: str

    def run(
        self, image: Bytes, tokens: Floats, noise: Floats, strength: Floats, *, out: Bytes
    ) -> None:
        """One step, from bytes to bytes.

        Args:
            image: uint8 NHW3, contiguous.
            tokens: float32 N × tokens × width.
            noise: float32 N × channels × height × width of the latent.
            strength: float32 N111.
            out: uint8 NHW3, contiguous, not sharing memory with `image`; receives the result.
        """
        ...

    def prepare(self, shape: tuple[int, int, int]) -> None:
        """Compiles for pictures of N, height, width."""
        ...


def choose(
    bundle: Bundle, *, backend: str, device: str, dtype: str, threads: int | None
) -> Backend:
    """Loads the network into what fits.

    Raises:
        ValueError: The combination is not possible.
        ImportError: The library that was named is not installed.
    """
    _known("backend", backend, BACKENDS)
    _known("dtype", dtype, DTYPES)
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    if backend == "openvino" and device != "cpu":
        raise ValueError(f"the openvino backend runs on the cpu, not on {device!r}")
    if backend == "openvino" or (backend == "auto" and device == "cpu" and _has_openvino()):
        problem = bundle.graph_problem()
        if problem is None:
            return OpenVINO(bundle, dtype=dtype, threads=threads)
        if backend == "openvino":
            raise ValueError(
                f"model {bundle.name!r} cannot run in OpenVINO: {problem}; make the graph anew "
                "with python -m nodes.sdxs.distill.export"
            )
        _log.warning("model %s runs on torch, more slowly: %s", bundle.name, problem)
    return Torch(bundle, device=device, dtype=dtype, threads=threads)


class OpenVINO:
    """The committed graph, compiled for each size that is asked for."""

    name = "openvino"

    def __init__(self, bundle: Bundle, *, dtype: str, threads: int | None) -> None:
        import openvino

        self._openvino = openvino
        self._core = openvino.Core()
        self._core.set_property({"ENABLE_MMAP": True})
        self.dtype = self._pick(dtype)
        self._graph = bundle.folder / GRAPH[0]
        self._shrink = bundle.shrink
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[self.dtype],
            # Pinned threads would wait for whatever else runs on their core.
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self._requests: OrderedDict[tuple[int, int, int], Any] = OrderedDict()

    def _pick(self, dtype: str) -> str:
        if dtype == "float16":
            raise ValueError("the openvino backend computes in float32 or bfloat16, not float16")
        able = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if dtype == "bfloat16" and not able:
            raise ValueError("this processor has no bfloat16 instructions; use dtype float32")
        if dtype == "auto":
            return "bfloat16" if able else "float32"
        return dtype

    def prepare(self, shape: tuple[int, int, int]) -> None:
        """Compiles, if the size is new."""
        self._request(shape)

    def run(
        self, image: Bytes, tokens: Floats, noise: Floats, strength: Floats, *, out: Bytes
    ) -> None:
        """See `Backend.run`."""
        request = self._request((image.shape[0], image.shape[1], image.shape[2]))
        tensor = self._openvino.Tensor
        for index, array in enumerate((image, tokens, noise, strength)):
            request.set_input_tensor(index, tensor(array, shared_memory=True))
        request.set_output_tensor(0, tensor(out, shared_memory=True))
        request.infer()

    def _request(self, shape: tuple[int, int, int]) -> Any:
        if shape in self._requests:
            self._requests.move_to_end(shape)
            return self._requests[shape]
        graph = self._core.read_model(self._graph)
        count, height, width = shape
        image, tokens, noise, strength = graph.inputs
        graph.reshape(
            {
                image: [count, height, width, 3],
                tokens: [count, *_fixed(tokens)[1:]],
                noise: [count, _fixed(noise)[1], height // self._shrink, width // self._shrink],
                strength: [count, 1, 1, 1],
            }
        )
        request = self._core.compile_model(graph, "CPU", self._settings).create_infer_request()
        self._requests[shape] = request
        while len(self._requests) > KEPT_SIZES:
            self._requests.popitem(last=False)
        return request


class Torch:
    """The network in torch: any device, any of its floating-point types."""

    name = "torch"

    def __init__(self, bundle: Bundle, *, device: str, dtype: str, threads: int | None) -> None:
        import torch

        from nodes.sdxs.checkpoint.uploads import Uploads
        from nodes.sdxs.network import Network, channels_last

        self._torch = torch
        self._device = place_of(device)
        self._uploads = Uploads(self._device)
        if dtype == "auto":
            dtype = "float16" if self._device.type == "cuda" else "float32"
        self.dtype = dtype
        if threads is not None and self._device.type == "cpu":
            torch.set_num_threads(threads)
        network = Network.load(bundle.folder, dtype=getattr(torch, dtype))
        # On the CPU this halves the time of a picture.
        self._network: Network = channels_last(network.to(self._device))
        if self._device.type == "cuda":
            # Pictures may be painted on another stream than the weights were laid out on.
            torch.cuda.current_stream(self._device).synchronize()

    def prepare(self, shape: tuple[int, int, int]) -> None:
        """Nothing to compile."""

    def run(
        self, image: Bytes, tokens: Floats, noise: Floats, strength: Floats, *, out: Bytes
    ) -> None:
        """See `Backend.run`."""
        torch = self._torch
        with torch.inference_mode():
            inputs = (
                torch.from_numpy(array).to(self._device)
                for array in (image, tokens, noise, strength)
            )
            styled = self._network(*inputs)
            torch.from_numpy(out).copy_(styled)

    @property
    def device(self) -> str:
        """As torch names it."""
        return str(self._device)

    def run_there(
        self, image: Tensor, tokens: Floats, noise: Floats, strength: float, *, out: Tensor
    ) -> None:
        """One step on pictures that are on the device, on the current stream; nobody waits.

        Args:
            image: uint8 1 × H × W × 3.
            tokens: as in `run`; the same object for as long as it is the same.
            noise: likewise.
            strength: as in `run`, one number.
            out: receives the result, of the shape of `image`.
        """
        torch = self._torch
        with torch.inference_mode():
            tensors = self._uploads.of(tokens), self._uploads.of(noise)
            held = torch.full((1, 1, 1, 1), strength, device=self._device)
            out.copy_(self._network(image, *tensors, held))


def _known(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"unknown {what} {value!r}; known are {', '.join(choices)}")


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def _fixed(port: Any) -> list[int]:
    """A port's shape, with -1 where it is free."""
    return [side.get_length() if side.is_static else -1 for side in port.partial_shape]
