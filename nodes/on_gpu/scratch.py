"""Device memory of a node's own, for pictures between two kernels; kept from picture to picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamer.gpu.device import Device


class Scratch:
    """One array for each use; all work on it is put into one stream, which keeps the order.

    Args:
        device: whose memory it is.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._arrays: dict[str, Any] = {}

    def array(self, use: str, shape: tuple[int, ...]) -> Any:
        """A uint8 array of a shape, with whatever was there.

        Args:
            use: names what it is for: a later array of the same use takes its place.
            shape: of the array.

        Raises:
            DeviceError: there is not so much memory.
        """
        held = self._arrays.get(use)
        if held is None or tuple(held.shape) != shape:
            self._arrays.pop(use, None)
            held = self._arrays[use] = self._device.empty(shape)
        return held
