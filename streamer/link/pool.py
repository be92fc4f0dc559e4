"""The slots of an outlet: which are free, who holds the others, and slabs of former sizes.

A slot is free when nobody holds it. A larger picture needs a slab of larger slots: a new
generation. The former slab lives on until the last lease of its slots has ended, and one on a GPU
until no consumer has it open any more: its slots are then parked, not freed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from streamer.errors import SlabError
from streamer.gpu.pixels import DevicePixels
from streamer.link import slab as slabs
from streamer.link import wire

QUARANTINE: Final = 2.0
"""seconds after the death of a process before memory that it had open is freed: its driver may
not have ended what it had under way"""
_AGAIN: Final = 1.0
"""seconds before memory that could not be had is asked for again"""

_forsaken: Final[list[slabs.Slab]] = []
"""slabs that a consumer still has open when their outlet closes; the process's end frees them"""


@dataclass(slots=True)
class Slot:
    """A slot leased to the producing node for writing.

    `generation` is 0 for scratch memory, which a live outlet gives when all slots are in use.
    """

    generation: int
    index: int
    pixels: slabs.Pixels

    def seal(self) -> None:
        """The node has put all its work on the picture into its stream."""
        if isinstance(self.pixels, DevicePixels):
            self.pixels.seal()


class Mirrored(Enum):
    """Whether a picture on a GPU has been copied to the host."""

    NO = 0
    UNDER_WAY = 1
    YES = 2
    FAILED = 3


@dataclass(slots=True)
class Generation:
    """A slab and who uses its slots: the number of holders of each.

    `mirror` is a slab of the host with copies of the same slots, for consumers that cannot reach a
    slab on a GPU; `mirrored` says which slots it has. `openers` may have the slab open by its
    handle; it is not freed before `free_at`.
    """

    number: int
    slab: slabs.Slab
    holders: list[int]
    mirror: slabs.Slab | None = None
    mirrored: list[Mirrored] = field(default_factory=list)
    openers: set[str] = field(default_factory=set)
    free_at: float = 0.0


class SlotPool:
    """Not safe for threads: the outlet's lock guards it, but for `forget_later`.

    Args:
        make: makes a slab of so many slots of so many bytes.
    """

    def __init__(self, make: Callable[[int, int], slabs.Slab] = slabs.create) -> None:
        self._make = make
        self._current: Generation | None = None
        self._retired: list[Generation] = []
        self._parked: list[Generation] = []
        self._made = 0
        self._later: deque[Slot] = deque()
        self._refused: tuple[float, int, SlabError] | None = None

    def lease(self, nbytes: int, slots: int) -> Slot | None:
        """A free slot for a picture of `nbytes`, with one holder; None if all are in use.

        Args:
            nbytes: bytes of the picture.
            slots: how many a slab shall have, where a new one is needed.

        Raises:
            SlabError: memory for a larger picture cannot be had.
        """
        generation = self._for(nbytes, slots)
        try:
            index = generation.holders.index(0)
        except ValueError:
            return None
        generation.holders[index] = 1
        generation.mirrored[index] = Mirrored.NO
        return Slot(generation.number, index, generation.slab.slot(index))

    def scratch(self) -> Slot:
        """Memory for a picture that is dropped, after `lease` has found no free slot."""
        assert self._current is not None
        return Slot(0, -1, self._current.slab.scratch())

    def hold(self, generation: Generation, slot: int) -> None:
        """Adds a holder to a slot."""
        generation.holders[slot] += 1

    def find(self, number: int) -> Generation | None:
        """The generation of a number, unless its slab has been closed."""
        if self._current is not None and self._current.number == number:
            return self._current
        return next((g for g in self._retired if g.number == number), None)

    def release(self, number: int, slot: int) -> None:
        """Takes one holder from a slot."""
        generation = self.find(number)
        if generation is not None:
            generation.holders[slot] -= 1
            self._retire()

    def forget_later(self, slot: Slot) -> None:
        """Has `settle` release a slot; from any thread, also where garbage is collected."""
        self._later.append(slot)

    def settle(self) -> None:
        """Releases what `forget_later` was given, and frees what has been parked long enough."""
        while self._later:
            slot = self._later.popleft()
            self.release(slot.generation, slot.index)
        self._free_parked()

    def closed(self, number: int, opener: str) -> None:
        """A consumer has closed a generation's slab."""
        for generation in (*self.generations, *self._parked):
            if generation.number == number:
                generation.openers.discard(opener)
        self._free_parked()

    def died(self, opener: str) -> None:
        """The process of a consumer is dead: what it had open is closed, after a while."""
        for generation in (*self.generations, *self._parked):
            if opener in generation.openers:
                generation.openers.remove(opener)
                generation.free_at = time.monotonic() + QUARANTINE

    @property
    def generations(self) -> tuple[Generation, ...]:
        """Slabs that are not closed yet, the present one last."""
        return (*self._retired, *([self._current] if self._current else []))

    @property
    def open_elsewhere(self) -> bool:
        """Whether a consumer has memory of it open by a handle."""
        return any(g.openers for g in (*self.generations, *self._parked))

    def close(self) -> None:
        """Lets go of all memory; what is open elsewhere is left to the end of the process."""
        for generation in (*self.generations, *self._parked):
            if generation.openers or generation.free_at > time.monotonic():
                _forsaken.append(generation.slab)
            else:
                generation.slab.close()
            if generation.mirror is not None:
                generation.mirror.close()
        self._retired.clear()
        self._parked.clear()
        self._current = None

    def __repr__(self) -> str:
        used = [sum(map(bool, g.holders)) for g in self.generations]
        return f"<SlotPool, slots in use: {used}>"

    def _for(self, nbytes: int, slots: int) -> Generation:
        current = self._current
        if current is not None and nbytes <= current.slab.slot_bytes:
            return current
        if self._refused is not None:
            when, size, error = self._refused
            if size == nbytes and time.monotonic() - when < _AGAIN:
                raise error.with_traceback(None)
        try:
            made = self._make(min(slots, wire.MAX_SLOTS), nbytes)
        except SlabError as error:
            self._refused = time.monotonic(), nbytes, error
            raise
        self._made += 1
        if current is not None:
            self._retired.append(current)
        count = made.slots
        self._current = Generation(self._made, made, [0] * count, mirrored=[Mirrored.NO] * count)
        self._retire()
        return self._current

    def _retire(self) -> None:
        """Parks the slabs of former sizes whose last lease has ended."""
        for generation in [g for g in self._retired if not any(g.holders)]:
            self._retired.remove(generation)
            self._parked.append(generation)
            if generation.mirror is not None:
                generation.mirror.close()
                generation.mirror = None
        self._free_parked()

    def _free_parked(self) -> None:
        now = time.monotonic()
        for generation in [g for g in self._parked if not g.openers and now >= g.free_at]:
            self._parked.remove(generation)
            generation.slab.close()
