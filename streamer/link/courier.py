"""Copies of pictures from a GPU to the host, for consumers that cannot reach the GPU's memory.

One copy serves all of them. It is made by a thread of its own, on a stream of its own, so neither
the producing node nor the thread that serves the socket waits for it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

import numpy as np

from streamer.errors import DeviceError, FrameError, SlabError
from streamer.gpu import meter
from streamer.gpu.device import Copy, Device
from streamer.link.cuda import CudaSlab, left_to_the_driver
from streamer.link.memfd import MemfdSlab
from streamer.link.pool import Generation

_log = logging.getLogger("streamer.link")


class PinnedSlab(MemfdSlab):
    """Shared memory of the host that a GPU copies to without a detour, where the driver lets it."""

    def __init__(self, device: Device, slots: int, slot_bytes: int) -> None:
        super().__init__(slots, slot_bytes)
        self._device = device
        self._pinned: list[int] = []
        for index in range(slots):
            pointer = address(self.slot(index))
            try:
                device.host_register(pointer, slot_bytes)
            except DeviceError as error:
                _log.info("copies to the host take a detour: %s", error)
                break
            self._pinned.append(pointer)

    def close(self) -> None:
        """Unpins the memory and lets go of it."""
        pinned, self._pinned = self._pinned, []
        for pointer in pinned:
            with left_to_the_driver():
                self._device.host_unregister(pointer)
        super().close()


class Courier:
    """See the module.

    Args:
        device: GPU that the pictures are on.
        done: called in the courier's thread with a generation, a slot, and whether its copy lies
            in the generation's mirror.
        meters: count what it copies.
    """

    def __init__(
        self,
        device: Device,
        done: Callable[[Generation, int, bool], None],
        meters: meter.Meters,
    ) -> None:
        self._device = device
        self._meters = meters
        self._done = done
        self._jobs: queue.SimpleQueue[tuple[Generation, int, int] | None] = queue.SimpleQueue()
        self._failing = False
        self._stream: int | None = None
        self._event: int | None = None
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._thread.start()

    def copy(self, generation: Generation, slot: int, nbytes: int) -> None:
        """Has the first bytes of a slot copied, in the order of the calls.

        Args:
            generation: its slab is on the GPU; the slot has a holder until `done` was called.
            slot: index of the slot, sealed.
            nbytes: bytes of the picture.
        """
        self._jobs.put((generation, slot, nbytes))

    def close(self) -> None:
        """Ends the thread when the copy that it is making is done."""
        self._jobs.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(5)

    def _run(self) -> None:
        meter.use(self._meters)
        while (job := self._jobs.get()) is not None:
            generation, slot, nbytes = job
            try:
                self._copy(generation, slot, nbytes)
                done = True
                self._failing = False
            except (SlabError, FrameError) as error:
                if not self._failing:
                    _log.warning("pictures on the GPU cannot be copied to the host: %s", error)
                self._failing, done = True, False
            self._done(generation, slot, done)
        with left_to_the_driver():
            if self._event is not None:
                self._device.event_destroy(self._event)
            if self._stream is not None:
                self._device.stream_destroy(self._stream)

    def _copy(self, generation: Generation, slot: int, nbytes: int) -> None:
        # Made here, so that a GPU without memory for them is one picture's failure.
        if self._stream is None:
            self._stream = self._device.stream_create()
        if self._event is None:
            self._event = self._device.event_create()
        slab = generation.slab
        assert isinstance(slab, CudaSlab)
        if generation.mirror is None:
            generation.mirror = PinnedSlab(self._device, slab.slots, slab.slot_bytes)
        to = generation.mirror.slot(slot)
        assert isinstance(to, memoryview)
        pixels = slab.reader(slot)
        pixels.use(self._stream)
        self._device.memcpy_async(address(to), pixels.pointer, nbytes, Copy.TO_HOST, self._stream)
        self._device.event_record(self._event, self._stream)
        self._device.event_synchronize(self._event)


def address(view: memoryview) -> int:
    """First byte of host memory."""
    pointer: int = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
    return pointer
