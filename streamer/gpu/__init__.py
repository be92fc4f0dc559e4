"""GPUs as links use them: one small interface, on CUDA by CuPy or simulated on a host.

`device(0)` gives the device of an ordinal. With `STREAMER_SIMULATED_GPU=<folder>` in the
environment that is a simulated one, see `streamer.gpu.simulated`: host memory behind the same
calls, shared by all processes that name the same folder.
"""

from __future__ import annotations

import os
import threading
from typing import Final

from streamer.gpu.device import Device

SIMULATED: Final = "STREAMER_SIMULATED_GPU"
"""environment variable that names the folder of simulated devices"""

_devices: dict[int, Device] = {}
_opening = threading.Lock()


def device(ordinal: int) -> Device:
    """The device of an ordinal, opened once in this process.

    Raises:
        DeviceError: there is no such device here, or CuPy is missing or does not work.
    """
    with _opening:
        found = _devices.get(ordinal)
        if found is None:
            found = _devices[ordinal] = _open(ordinal)
        return found


def opened() -> tuple[Device, ...]:
    """The devices that this process has opened."""
    return tuple(_devices.values())


def _open(ordinal: int) -> Device:
    folder = os.environ.get(SIMULATED)
    if folder:
        from streamer.gpu.simulated import SimulatedDevice

        return SimulatedDevice(folder, ordinal)
    from streamer.gpu.cuda import CudaDevice

    return CudaDevice(ordinal)
