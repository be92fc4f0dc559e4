"""Arrays in simulated device memory: what `frame.cupy()` and `frame.torch()` give there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from streamer.gpu.simulated.runtime import SimulatedDevice


class SimulatedArray:
    """A contiguous uint8 array of a device; what is done with it is done later, on a stream.

    Attributes:
        shape: of the array.
        pointer: its first byte.
        stream: of the thread that made it.
    """

    def __init__(
        self, device: SimulatedDevice, pointer: int, shape: tuple[int, ...], owner: object
    ) -> None:
        self.device = device
        self.pointer = pointer
        self.shape = shape
        self.stream = device.stream()
        self._owner = owner

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        size = 1
        for side in self.shape:
            size *= side
        return size

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def fill(self, value: int) -> None:
        """Sets all bytes, on the stream."""
        self.device.memset_async(self.pointer, value, self.nbytes, self.stream)

    def compute(
        self,
        function: Callable[..., npt.NDArray[np.uint8]],
        *sources: SimulatedArray,
    ) -> None:
        """Sets the array to what a function makes of other arrays, on the stream.

        Args:
            function: gets the sources as read-only arrays of numpy, returns one of this shape.
            sources: arrays of the same device.
        """
        self.device.launch(function, to=self, sources=sources)

    def get(self) -> npt.NDArray[np.uint8]:
        """A copy of the bytes in host memory, made when all work put in before is done."""
        import numpy as np

        from streamer.gpu.device import Copy

        out = np.empty(self.shape, np.uint8)
        to = out.__array_interface__["data"][0]
        self.device.memcpy_async(to, self.pointer, self.nbytes, Copy.TO_HOST, self.stream)
        self.device.stream_synchronize(self.stream)
        return out

    def __array__(self, *_: Any, **__: Any) -> npt.NDArray[np.uint8]:
        raise TypeError("an array on a GPU becomes one of numpy by get(), not by itself")

    def __repr__(self) -> str:
        return f"<SimulatedArray {self.shape} on gpu {self.device.ordinal}>"
