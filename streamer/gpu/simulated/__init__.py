"""A simulated GPU: host memory behind the calls of a device, with streams and events of its own.

It stands in for a GPU on machines without one, in tests and in trials of nodes. Work put into a
stream is done later, in a thread of the stream and after a delay, so that a missing wait shows as
wrong pixels; and what real GPUs only punish now and then is written down as a violation:

- memory is read on a stream that has not waited for the event that its last write is covered by
- memory is written while another stream has not done reading it
- memory is freed while another process has it open
- a handle is opened twice by one process, or by the one that exported it

All processes that name the same folder share its devices: memory and events lie in files there.
Memory of a process that dies is given back. `make` writes the folder and says what the devices are
like; `violations` tells what went wrong, `used` how much memory is taken.
"""

from __future__ import annotations

from streamer.gpu.simulated.arrays import SimulatedArray
from streamer.gpu.simulated.runtime import SimulatedDevice
from streamer.gpu.simulated.world import Settings, break_here, change, make, used, violations

__all__ = [
    "Settings",
    "SimulatedArray",
    "SimulatedDevice",
    "break_here",
    "change",
    "make",
    "used",
    "violations",
]
